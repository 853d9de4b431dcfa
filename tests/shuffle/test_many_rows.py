"""More than a million rows through four transports in four processes: each arrives once, whole, where it belongs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.native import _native
from tests.shuffle.agent_of_many import PARTITIONS, rows_between

PROCESSES = 4
ROWS_EACH = 260_000
ROOT = Path(__file__).parents[2]


@contextmanager
def processes(folder: Path) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "tests.shuffle.agent_of_many"]
    started = [
        subprocess.Popen(
            [*command, str(index), str(ROWS_EACH), str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(PROCESSES)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def heard(agents: list[subprocess.Popen[str]]) -> list[object]:
    """The next line of each; a process that dies says so on the test's standard error."""
    lines = [agent.stdout.readline() for agent in agents if agent.stdout is not None]
    assert all(lines), "a process ended early"
    return [json.loads(line) for line in lines]


def say(agents: list[subprocess.Popen[str]], what: object) -> None:
    for agent in agents:
        assert agent.stdin is not None
        print(json.dumps(what), file=agent.stdin, flush=True)


def kept(folder: Path, way: str, partition: int) -> pa.Table:
    with pa.memory_map(str(folder / f"{way}-{partition}.arrow")) as file:
        return pa.ipc.open_file(file).read_all().combine_chunks()


def partitions_of(table: pa.Table, way: str) -> pa.Array:
    if way == "named":
        return pc.bit_wise_and(table["number"], PARTITIONS - 1).combine_chunks()
    (batch,) = table.to_batches()
    return _native.partition_of(_native.hash_keys(batch, ["number", "text"]), PARTITIONS)


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what the four processes received, a file a partition and way."""
    folder = tmp_path_factory.mktemp("received")
    with processes(folder) as agents:
        say(agents, heard(agents))
        assert heard(agents) == [ROWS_EACH] * PROCESSES
        say(agents, [(task, 0) for task in range(PROCESSES)])
        assert heard(agents) == ["read"] * PROCESSES
        say(agents, "end")
        assert [agent.wait(timeout=20) for agent in agents] == [0] * PROCESSES
    return folder


@pytest.mark.parametrize("way", ["hashed", "named"])
def test_a_million_rows_arrive_once_and_whole_in_their_partitions(received: Path, way: str) -> None:
    tables = [kept(received, way, partition) for partition in range(PARTITIONS)]
    for partition, table in enumerate(tables):
        assert table.num_rows > 0
        assert pc.all(pc.equal(partitions_of(table, way), partition)).as_py()
    everything = pa.concat_tables(tables).sort_by("number").combine_chunks()
    assert everything == pa.Table.from_batches([rows_between(0, PROCESSES * ROWS_EACH)])
