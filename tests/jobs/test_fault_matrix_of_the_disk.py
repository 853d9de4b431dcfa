"""A job of more rows than three real agents have memory for, their disks full from some moment on: a typed error that
names the folder, agents that go on, and nothing left behind.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sabot.dataflow.dataset import Dataset
from sabot.errors import LimitReached
from tests.agent.processes import AgentProcess
from tests.client.connections import open_connections

from .held_job import ANSWERED_S, Held, Moment, Trio, until
from .rows import make_table

MiB = 1 << 20
MEMORY = 96 * MiB
FILES, GROUPS, ROWS, NOISE = 12, 16, 2_000, 1_000  # 384 MB, which nothing compresses: as much again as a result
FULL = 64 * 1024  # what a file may have from then on: enough for what an agent logs


@pytest.fixture(scope="module")
def many_rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("rows")
    rows = GROUPS * ROWS
    for index in range(FILES):
        noise = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(NOISE), rows, [None, pa.py_buffer(os.urandom(rows * NOISE))]
        )
        keys = pa.array(range(index * rows, (index + 1) * rows), pa.int64())
        pq.write_table(pa.table({"k": keys, "noise": noise}), folder / f"{index:02}.parquet", row_group_size=ROWS)
    return str(folder)


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SABOT_MEMORY_BYTES_MAX", str(MEMORY))
        environment.setenv("SABOT_SHUFFLE_SCATTER_BYTES_MAX", str(MiB))
        environment.setenv("SABOT_SHUFFLE_CHUNK_BYTES_MAX", str(MiB))
        environment.setenv("SABOT_JOBS_SPLIT_BYTES", str(MiB))  # a task for each row group
        agents = Trio(tmp_path_factory.mktemp("trio"))
        agents.start_victim()
        open_connections(agents.session)
        yield agents
        agents.close()


def agents_of(trio: Trio) -> tuple[AgentProcess, ...]:
    return trio.coordinator, trio.third, trio.victim


def fill_disks(trio: Trio, bytes_max: int) -> None:
    for agent in agents_of(trio):
        process = psutil.Process(agent.process.pid)
        process.rlimit(psutil.RLIMIT_FSIZE, (bytes_max, resource.RLIM_INFINITY))


def shuffled(rows: Dataset) -> Dataset:
    return rows.repartition("k", 96)


def files_on_disk(trio: Trio) -> list[Path]:
    return [path for agent in agents_of(trio) for path in (agent.state_dir / "spill").rglob("*") if path.is_file()]


def test_with_room_on_disk_the_job_is_exact(trio: Trio, many_rows: str) -> None:
    with shuffled(trio.session.read_parquet(many_rows)).run(timeout_s=150) as result:
        assert result.num_rows == FILES * GROUPS * ROWS and result.receipt.exact
        assert files_on_disk(trio)
    until(trio.all_free)
    until(lambda: not files_on_disk(trio))


@pytest.mark.parametrize("moment", ["send", "transfer", "barrier", "take", "end"])
def test_disks_that_are_full_from_any_moment_on_fail_the_job_by_name_and_leave_nothing(
    trio: Trio, tmp_path: Path, many_rows: str, moment: Moment
) -> None:
    job = Held(trio, tmp_path, moment, shuffled, many_rows)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(job.data.run)
        until(job.reached)
        fill_disks(trio, FULL)
        job.go_on()
        try:
            with pytest.raises(LimitReached) as raised:
                running.result(3 * ANSWERED_S)
            folders = [str(agent.state_dir / "spill") for agent in agents_of(trio)]
            assert any(folder in str(raised.value) for folder in folders), str(raised.value)
            until(trio.all_free)
            until(lambda: not files_on_disk(trio))
            small = make_table(1000)
            assert trio.session.from_table(small).repartition("k").count_rows() == 1000
            answer = trio.session.from_table(small).repartition("k").to_table()
            assert sorted(answer["v"].to_pylist()) == list(range(1000))
        finally:
            fill_disks(trio, resource.RLIM_INFINITY)
    assert all(agent.process.poll() is None for agent in agents_of(trio))
