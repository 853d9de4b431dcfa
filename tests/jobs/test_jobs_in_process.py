"""Whole jobs over agents in this process: answers, receipts, failures, and that nothing is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sabot.errors import JobError, UsageError

from .in_process import InProcessCluster


@pytest.fixture(params=[1, 2])
def cluster(request: pytest.FixtureRequest) -> Iterator[InProcessCluster]:
    with InProcessCluster(request.param, slots=2) as running:
        yield running


def make_table(rows: int) -> pa.Table:
    return pa.table(
        {
            "k": pa.array([i * 7919 % 97 for i in range(rows)], pa.int64()),
            "v": pa.array(range(rows), pa.int64()),
            "word": pa.array([f"word {i % 13}" for i in range(rows)]),
        }
    )


def write_files(folder: Path, table: pa.Table, *, files: int = 4, row_group_rows: int = 1000) -> str:
    folder.mkdir()
    rows = -(-table.num_rows // files)
    for index in range(files):
        pq.write_table(table.slice(index * rows, rows), folder / f"{index}.parquet", row_group_size=row_group_rows)
    return str(folder)


def nothing_held(cluster: InProcessCluster) -> bool:
    return all(agent.held() == (0, 0, 0) for agent in cluster.agents)


def test_files_grouped_and_sorted_equal_pyarrows_answer(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = make_table(20_000)
    session = cluster.connect()
    data = session.read_parquet(write_files(tmp_path / "t", table))
    answer = (
        data.filter(pc.field("v") % 3 == 0).group_by("k").aggregate([("v", "sum"), ([], "count_all")]).sort_by("k")
    )
    expected = (
        table.filter(pc.equal(pc.subtract(table["v"], pc.multiply(pc.divide(table["v"], 3), 3)), 0))
        .group_by("k")
        .aggregate([("v", "sum"), ([], "count_all")])
        .sort_by("k")
    )
    result = answer.run()
    assert result.to_table().equals(expected.select(result.to_table().schema.names))
    assert result.receipt.lost == result.receipt.doubled == 0 and result.receipt.exact
    result.close()
    cluster.wait_until(lambda: nothing_held(cluster))
