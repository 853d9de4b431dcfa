"""Whole jobs over agents in this process: their answers equal pyarrow's, their receipts are exact, nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from tests.dataflow.comparing import assert_same_rows

from .in_process import InProcessCluster
from .rows import in_order, make_table, write_files

GROUPING = [("v", "sum"), ("v", "mean"), ([], "count_all")]


@pytest.fixture(params=[1, 2, 3], ids=lambda count: f"{count} agents")
def cluster(request: pytest.FixtureRequest) -> Iterator[InProcessCluster]:
    """Tiny pieces everywhere, so that much crosses the wire."""
    limits = {"slots.morsel_bytes": 4096, "shuffle.scatter_bytes_max": 65536, "jobs.split_bytes": 65536}
    with InProcessCluster(request.param, slots=2, **limits) as running:
        yield running
        running.check_nothing_held()


def test_filter_group_sort(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = make_table(20_000)
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", table))
    result = data.filter(pc.field("v") < 15_000).group_by("k").aggregate(GROUPING).sort_by("k").run()
    assert result.to_table().equals(table.filter(pc.field("v") < 15_000).group_by("k").aggregate(GROUPING).sort_by("k"))
    assert result.receipt.exact
    assert (result.receipt.wire_bytes > 0) == (len(cluster.agents) > 1)
    assert all(stage.tasks_done == stage.tasks_total > 0 for stage in result.stats.stages)
    result.close()


def test_variances_send_a_row_for_each_group_of_a_task(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = make_table(20_000)
    functions = [("v", "variance"), ("v", "stddev"), ("v", "skew"), ("v", "kurtosis"), ("v", "count")]
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", table))
    with data.group_by("k").aggregate(functions).run() as result:
        assert_same_rows(result.to_table(), table.group_by("k").aggregate(functions))
        (shuffle,) = result.receipt.shuffles
        stage = result.stats.stages[0]
        assert shuffle.rows_in == stage.rows_out <= stage.tasks_total * len(table["k"].unique())
        assert result.receipt.exact


def test_join_of_files_with_an_uploaded_table(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = make_table(5000)
    names = pa.table({"k": pa.array(range(50), pa.int64()), "name": [f"name {i}" for i in range(50)]})
    session = cluster.connect()
    data = session.read_parquet(write_files(tmp_path / "t", table))
    answer = data.join(session.from_table(names), "k", join_type="left outer").to_table()
    assert in_order(answer).equals(in_order(table.join(names, "k", join_type="left outer")))


def double(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch({"twice": pc.multiply(batch["v"], 2)})


def test_python_function_sees_every_row_once(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = make_table(10_000)
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", table))
    answer = data.map_batches(double).to_table()
    assert sorted(answer["twice"].to_pylist()) == [2 * i for i in range(10_000)]


def only_large(batch: pa.RecordBatch) -> pa.RecordBatch | None:
    return batch if batch["v"][0].as_py() > 5000 else None


def test_python_function_may_drop_batches(cluster: InProcessCluster, tmp_path: Path) -> None:
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", make_table(10_000)))
    answer = data.map_batches(only_large, schema=data.schema).group_by("k").aggregate([("v", "min")]).to_table()
    assert answer.num_rows == 97 and pc.min(answer["v_min"]).as_py() > 5000


def test_dictionaries_arrive_as_dictionaries(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = make_table(5000).append_column("code", pa.array([f"c{i % 7}" for i in range(5000)]).dictionary_encode())
    session = cluster.connect()
    for data in (session.read_parquet(write_files(tmp_path / "t", table)), session.from_table(table)):
        answer = data.repartition("k").to_table()
        assert answer.schema.field("code").type == table.schema.field("code").type
        assert in_order(answer).equals(in_order(table))


def test_rows_keep_their_order_without_a_shuffle(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = make_table(10_000)
    session = cluster.connect()
    assert session.read_parquet(write_files(tmp_path / "t", table)).to_table().equals(table)
    assert session.from_table(table).to_table().equals(table)


def test_head_of_files_reads_no_more_than_it_needs(cluster: InProcessCluster, tmp_path: Path) -> None:
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", make_table(20_000)))
    assert data.head(7).to_table().num_rows == 7
    assert data.sort_by([("v", "descending")]).head(3).to_table()["v"].to_pylist() == [19_999, 19_998, 19_997]


def test_round_robin_deals_every_row_once(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = make_table(10_000)
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", table))
    result = data.repartition(num_partitions=5).run()
    assert in_order(result.to_table()).equals(in_order(table))
    assert [receipt.num_partitions for receipt in result.receipt.shuffles] == [5]
    result.close()


@pytest.mark.parametrize("rows", [0, 1])
def test_files_of_few_rows(cluster: InProcessCluster, tmp_path: Path, rows: int) -> None:
    table = make_table(rows)
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", table))
    assert data.count_rows() == rows
    assert data.to_table().equals(table)
    assert data.group_by("k").aggregate([("v", "sum")]).to_table().num_rows == rows
    assert data.group_by([]).aggregate([("v", "count")]).to_table()["v_count"].to_pylist() == [rows]
    assert data.map_batches(double).sort_by("twice").to_table().num_rows == rows


def test_csv_equals_pyarrows_reading(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = make_table(3000)
    for index in range(3):
        pa.csv.write_csv(table.slice(1000 * index, 1000), tmp_path / f"{index}.csv")
    data = cluster.connect().read_csv(str(tmp_path / "*.csv"))
    assert data.to_table().equals(table)
    assert data.select(["word"]).to_table().equals(table.select(["word"]))
    assert data.count_rows() == 3000


@pytest.mark.parametrize("format", ["parquet", "csv", "ipc"])
def test_written_dataset_holds_every_row_once(cluster: InProcessCluster, tmp_path: Path, format: str) -> None:
    table = make_table(5000)
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", table))
    data.repartition("k").write_dataset(str(tmp_path / "out"), format=format)
    assert in_order(pyarrow.dataset.dataset(tmp_path / "out", format=format).to_table()).equals(in_order(table))
    # The record of the publish goes when the agents hear that the client knows.
    cluster.wait_until(lambda: not list((tmp_path / "out").glob(".*")))


def test_written_parquet_keeps_dictionaries(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = pa.table({"code": pa.array(["a", "b", "a"]).dictionary_encode()})
    cluster.connect().from_table(table).write_dataset(str(tmp_path / "out"))
    assert pq.read_table(tmp_path / "out").schema.field("code").type == table.schema.field("code").type


def test_several_jobs_at_once_give_each_its_own_answer(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = make_table(5000)
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", table))

    def job(bound: int) -> int:
        return data.filter(pc.field("v") < bound).repartition("k").count_rows()

    bounds = list(range(0, 4000, 500))
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(job, bounds)) == bounds
