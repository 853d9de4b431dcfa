"""The coordinator's agent killed while it moves files into place: the dataset is there once and whole."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

import sabot
from sabot.agent.files.publish import MANIFEST

from .rows import in_order, make_table, write_files

ROWS = 1200


def test_coordinator_killed_while_it_publishes_leaves_the_dataset_once_and_whole(tmp_path: Path) -> None:
    table = make_table(ROWS)
    folder = write_files(tmp_path / "t", table, files=6)
    out = tmp_path / "out"
    with sabot.LocalCluster(agents=3, slots=1) as cluster:
        session = cluster.connect(progress=False)
        coordinator = next(agent for agent in cluster.agents if agent.agent_id == session.agent.agent_id)
        found = threading.Event()
        ended = threading.Event()

        def kill_in_mid_publish() -> None:
            while not ended.is_set():
                if (out / MANIFEST).exists():
                    coordinator.kill()
                    found.set()
                    return

        killer = threading.Thread(target=kill_in_mid_publish)
        killer.start()
        try:
            session.read_parquet(folder).write_dataset(out, max_rows_per_file=1)
        finally:
            ended.set()
            killer.join()
        assert found.is_set(), "the publish was over before anybody saw its manifest"
        assert not (out / MANIFEST).exists()
        files = [path for path in out.iterdir() if not path.name.startswith(".")]
        assert len(files) == ROWS
        assert in_order(ds.dataset([str(path) for path in files]).to_table()) == in_order(table)
        again: pa.Table = session.read_parquet(out).to_table()
        assert in_order(again) == in_order(table)
