"""A worker process that is stopped in the middle of a function costs its job a second attempt and not its answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sabot import LocalCluster
from sabot.client.session import Session

from .held_job import until
from .test_job_handles import left_of_jobs

ROWS = 8_000
FILES = 8


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(agents=2, slots=1) as running:
        yield running


@pytest.fixture
def session(cluster: LocalCluster) -> Iterator[Session]:
    with cluster.connect(progress=False) as connected:
        yield connected


def stopping_once(folder: Path) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A function whose process stops for ever, the first time that any has rows."""

    def stop(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows:
            try:
                os.close(os.open(folder / "stopped", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return batch
            os.kill(os.getpid(), signal.SIGSTOP)
        return batch

    return stop


def write(folder: Path) -> tuple[str, pa.Table]:
    table = pa.table({"k": [i * 7919 % 97 for i in range(ROWS)], "v": list(range(ROWS))})
    (folder / "t").mkdir()
    for index in range(FILES):
        pq.write_table(table.slice(index * ROWS // FILES, ROWS // FILES), folder / "t" / f"{index}.parquet")
    return str(folder / "t"), table


@pytest.mark.parametrize("where", ["scan", "reader"])
def test_worker_that_is_stopped_does_not_hold_its_job(
    cluster: LocalCluster, session: Session, tmp_path: Path, where: str
) -> None:
    path, table = write(tmp_path)
    expected = table.group_by("k").aggregate([("v", "sum")]).sort_by("k")
    stop = stopping_once(tmp_path)
    data = session.read_parquet(path)
    if where == "scan":
        data = data.map_batches(stop, schema=table.schema)
    data = data.group_by("k").aggregate([("v", "sum")])
    if where == "reader":
        data = data.map_batches(stop, schema=data.schema)
    with data.run(timeout_s=60) as result:
        assert (tmp_path / "stopped").exists()
        assert result.to_table().sort_by("k").select(["k", "v_sum"]).equals(expected)
        assert result.receipt.exact
        stages = result.stats.stages
        assert stages[0 if where == "scan" else 1].second_attempts > 0
        assert all(stage.tasks_redone == 0 for stage in stages) and not result.stats.agents_lost
    until(lambda: left_of_jobs(cluster) == [(0, 0, 0, 0)] * 2)
