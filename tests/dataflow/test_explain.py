"""How a plan reads."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.dataset import Dataset
from sabot.dataflow.explain import explain_job
from sabot.dataflow.plan import ScanNode
from sabot.dataflow.planner import plan_job
from sabot.dataflow.stage import WriteOutput
from tests.dataflow.files import source_file
from tests.dataflow.interpreter import InterpreterSession

SESSION = InterpreterSession()
FLIGHTS = pa.schema(
    [
        ("tail", pa.string()),
        ("carrier", pa.string()),
        ("delay", pa.int32()),
        ("miles", pa.int32()),
        ("dest", pa.string()),
    ]
)
AIRLINES = pa.table({"carrier": ["AA"], "name": ["American"]})

GOLDEN = """\
stage 0: read 2 parquet files
  from  2 parquet file(s), 3,000 bytes, columns carrier, delay, miles
  then  filter (miles > 100)
  then  columns carrier, delay
  to    shuffle by hash of carrier into partitions: rows with equal keys of both sides must meet

stage 1: read a table
  from  the client's table with columns carrier, name
  to    shuffle by hash of carrier into partitions: rows with equal keys of both sides must meet

stage 2: join on carrier
  from  the left side the shuffle of stage 0, the right side the shuffle of stage 1
  then  left outer join on carrier
  then  columns delay, name
  then  columns name, delay, delay as double = cast(delay, double)
  then  aggregate this task's rows by name: delay_count, delay as double_sum, count_all
  to    shuffle by hash of name into partitions: rows of a group must meet

stage 3: group by name
  from  the shuffle of stage 2
  then  put aggregates together by name: delay_mean, count_all
  then  sort by delay_mean descending
  then  take the first 5 rows
  to    shuffle into one partition: one task puts all in order

stage 4: sort by delay_mean
  from  the shuffle of stage 3
  then  sort by delay_mean descending
  then  take the first 5 rows
  to    the result, fetched by the client
"""


def flights() -> Dataset:
    files = tuple(source_file(f"{i}.parquet", rows=(10,), sizes=(1500,)) for i in range(2))
    return Dataset(SESSION, ScanNode(format="parquet", files=files, file_schema=FLIGHTS))


def test_a_join_a_grouping_and_a_sort_read_like_this() -> None:
    dataset = (
        flights()
        .filter(pc.field("miles") > 100)
        .join(SESSION.from_table(AIRLINES), "carrier")
        .group_by("name")
        .aggregate([("delay", "mean"), ([], "count_all")])
        .sort_by([("delay_mean", "descending")])
        .head(5)
    )
    assert dataset.explain() == GOLDEN


def test_every_step_and_output_has_its_words() -> None:
    def tidy(batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch

    text = flights().map_batches(tidy).repartition(num_partitions=3).head(2).explain()
    assert "then  call tidy with each batch" in text
    assert "shuffle in turn into 3 partitions: rows are to be spread evenly" in text
    assert "shuffle into one partition: one task takes the first of all" in text
    assert "from  2 parquet file(s), 3,000 bytes, all columns" in text
    text = flights().repartition("carrier", 1).explain()
    assert "shuffle by hash of carrier into 1 partition: repartition asked for it" in text
    text = flights().group_by([]).aggregate([("miles", "sum")]).explain()
    assert "shuffle into one partition: one task must see all" in text
    text = flights().join(flights(), ["tail", "dest"], ["tail", "carrier"], right_suffix="_r").explain()
    assert "left outer join on tail, dest = carrier" in text
    text = explain_job(plan_job(flights()._node, job_id="job", output=WriteOutput(folder="/out", format="csv")))
    assert "to    csv files in /out" in text


def test_a_whole_aggregate_before_a_shuffle_is_not_called_partial() -> None:
    grouped = flights().group_by("carrier").aggregate([("delay", "list")])
    text = grouped.repartition("carrier").explain()
    assert "then  aggregate by carrier: delay_list" in text
    assert "this task's rows" not in text
