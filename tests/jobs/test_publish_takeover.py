"""The coordinator's agent killed while it moves files into place: the dataset is there once and whole."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

import sabot
from sabot.agent.files.publish import MANIFEST
from tests.agent.processes import Agents

from .held_job import until
from .rows import in_order, make_table, write_files

ROWS = 400


def visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def test_coordinator_killed_while_it_publishes_leaves_the_dataset_once_and_whole(tmp_path: Path) -> None:
    table = make_table(ROWS)
    folder = write_files(tmp_path / "t", table, files=6)
    out, halted = tmp_path / "out", tmp_path / "halted"
    agents = Agents(tmp_path / "agents")
    try:
        first = agents.start("first", module="tests.jobs.halting_agent", environment={"HALTED": str(halted)})
        for other in ("second", "third"):
            agents.start(other, "--join", first.control)
        until(lambda: len(first.members()) == 3)
        with sabot.connect(first.control, progress=False) as session, ThreadPoolExecutor(1) as pool:
            writing = pool.submit(session.read_parquet(folder).write_dataset, out, max_rows_per_file=1)
            until(lambda: halted.exists() or writing.done())
            assert (out / MANIFEST).exists() and len(visible(out)) == ROWS // 2
            first.signal(signal.SIGKILL)
            writing.result()
            assert not (out / MANIFEST).exists()
            files = visible(out)
            assert len(files) == ROWS
            assert in_order(ds.dataset([str(path) for path in files]).to_table()) == in_order(table)
            again: pa.Table = session.read_parquet(out).to_table()
            assert in_order(again) == in_order(table)
    finally:
        agents.close()
