"""A function of whole partitions: what it is given, what it may return, where it runs and how it fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sabot.errors import TaskFailed, UsageError

from .in_process import InProcessCluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers are spared what this module imports

TABLE = pa.table({"k": pa.array([i % 7 for i in range(1000)], pa.int64()), "v": pa.array(range(1000), pa.int64())})
FACTS = pa.schema([("pid", pa.int64()), ("rows", pa.int64()), ("keys", pa.list_(pa.int64()))])


def facts(table: pa.Table) -> pa.Table:
    assert type(table) is pa.Table
    keys = [sorted(set(table["k"].to_pylist()))]
    return pa.table({"pid": [os.getpid()], "rows": [table.num_rows], "keys": keys}, schema=FACTS)


def test_function_is_given_each_partition_whole(cluster: InProcessCluster) -> None:
    data = cluster.connect().from_table(TABLE).repartition("k", num_partitions=5)
    answer = data.map_partitions(facts, FACTS).to_table()
    keys = [key for part in answer["keys"].to_pylist() for key in part]
    assert sorted(keys) == list(range(7)), "the rows of a key are in one partition"
    assert pc.sum(answer["rows"]).as_py() == 1000
    assert answer.num_rows <= 5 and os.getpid() not in answer["pid"].to_pylist()


def test_function_of_a_source_is_given_what_a_task_reads(cluster: InProcessCluster, tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet", row_group_size=100)
    data = cluster.connect().read_parquet(tmp_path / "t.parquet").filter(pc.field("v") >= 500)
    answer = data.map_partitions(facts, FACTS, processes=False).to_table()
    assert pc.sum(answer["rows"]).as_py() == 500
    assert set(answer["pid"].to_pylist()) == {os.getpid()}


def in_duckdb(table: pa.Table) -> Any:
    return duckdb.connect().from_arrow(table).aggregate("k, sum(v)::BIGINT AS total", "k")


def as_batch(table: pa.Table) -> pa.RecordBatch:
    return pa.record_batch({"k": [table["k"][0].as_py()], "total": [pc.sum(table["v"]).as_py()]})


def as_reader(table: pa.Table) -> pa.RecordBatchReader:
    return table.group_by("k").aggregate([("v", "sum")]).rename_columns(["k", "total"]).to_reader()


def in_polars(table: pa.Table) -> Any:
    import polars as pl  # type: ignore[import-not-found]

    return pl.from_arrow(table).group_by("k").agg(pl.col("v").sum().alias("total"))


@pytest.mark.parametrize("function", [in_duckdb, as_reader, in_polars])
def test_answers_may_be_anything_that_streams_arrow(cluster: InProcessCluster, function: Callable[..., Any]) -> None:
    if function is in_polars:
        pytest.importorskip("polars", reason="Polars is not installed: an example needs it, Sabot does not")
    data = cluster.connect().from_table(TABLE).repartition("k", num_partitions=3)
    answer = data.map_partitions(function).sort_by("k").to_table()
    expected = TABLE.group_by("k").aggregate([("v", "sum")]).rename_columns(["k", "total"]).sort_by("k")
    assert answer.to_pydict() == expected.to_pydict()


def test_strings_of_any_layout_are_taken_for_strings(cluster: InProcessCluster) -> None:
    def views(table: pa.Table) -> pa.Table:
        return pa.table({"s": pc.cast(table["v"], pa.string()).cast(pa.string_view())})

    data = cluster.connect().from_table(TABLE)
    learnt = data.map_partitions(views)
    assert learnt.schema == pa.schema([("s", pa.large_string())])
    assert learnt.group_by("s").aggregate([([], "count_all")]).count_rows() == 1000
    declared = data.map_partitions(views, schema=pa.schema([("s", pa.string())])).to_table()
    assert sorted(declared["s"].to_pylist()) == sorted(str(v) for v in range(1000))


def test_steps_go_on_after_a_function_of_partitions(cluster: InProcessCluster) -> None:
    data = cluster.connect().from_table(TABLE).repartition("k")
    sums = data.map_partitions(as_reader).append_column("twice", pc.field("total") * 2)
    answer = sums.map_batches(lambda batch: batch).filter(pc.field("k") < 3).map_partitions(lambda t: t).to_table()
    assert sorted(answer["k"].to_pylist()) == [0, 1, 2]
    assert answer["twice"].to_pylist() == [2 * total for total in answer["total"].to_pylist()]


def test_empty_partitions_and_none_give_no_rows(cluster: InProcessCluster) -> None:
    def only_zero(table: pa.Table) -> pa.Table | None:
        if not table.num_rows:
            raise AssertionError("called with an empty partition")
        return table if 0 in table["k"].to_pylist() else None

    data = cluster.connect().from_table(TABLE.filter(pc.field("k") < 2)).repartition("k", num_partitions=9)
    answer = data.map_partitions(only_zero, schema=TABLE.schema).to_table()
    assert 0 in answer["k"].to_pylist()


def test_large_partition_goes_to_its_worker_and_back(cluster: InProcessCluster) -> None:
    rows = 4_000_000  # 64 MiB a side, in many chunks
    data = cluster.connect().from_table(pa.table({"v": pa.array(range(rows), pa.int64())}))
    once = data.repartition(num_partitions=1).map_partitions(lambda t: t.append_column("w", t["v"]), timeout_s=100)
    answer = once.to_table()
    assert answer.num_rows == rows and pc.sum(answer["w"]).as_py() == rows * (rows - 1) // 2


class Unfit(Exception):
    pass


def test_exception_arrives_as_itself_with_all_places_named(cluster: InProcessCluster) -> None:
    def refuse(table: pa.Table) -> pa.Table:
        raise Unfit("no such partition")

    with pytest.raises(Unfit, match="no such partition") as raised:
        cluster.connect().from_table(TABLE).repartition("k").map_partitions(refuse, TABLE.schema).run()
    notes = "\n".join(raised.value.__notes__)
    for place in ("in refuse", "morsel=0", "agent=agent-", "stage=1", "task="):
        assert place in notes


def test_function_that_kills_its_process_fails_its_job_and_no_agent(cluster: InProcessCluster) -> None:
    session = cluster.connect()
    with pytest.raises(TaskFailed, match="ended with exit code 9"):
        session.from_table(TABLE).map_partitions(lambda table: os._exit(9), TABLE.schema).run()
    assert session.from_table(TABLE).count_rows() == 1000


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "a number": (lambda table: 3, r"returned a int; it must return a pyarrow\.Table, a RecordBatch, what has "),
    "other columns": (
        lambda table: table.select(["k"]),
        r"returned columns \(k: int64\), but was to return \(k: int64",
    ),
    "other types": (lambda table: table.cast(pa.schema([("k", pa.int32()), ("v", pa.int64())])), r"\(k: int32, v: "),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_answer_that_does_not_fit_is_refused(cluster: InProcessCluster, wrong: str) -> None:
    function, text = WRONG[wrong]
    with pytest.raises(UsageError, match=text):
        cluster.connect().from_table(TABLE).map_partitions(function, TABLE.schema).run()


def test_function_that_fails_without_rows_is_told_to_be_given_a_schema(cluster: InProcessCluster) -> None:
    with pytest.raises(UsageError, match=r"as_batch raised IndexError when .*pass schema="):
        _ = cluster.connect().from_table(TABLE).map_partitions(as_batch).schema
