"""What has to have more rows at once than the memory takes ends with an error that says what else can be done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sabot import LocalCluster
from sabot.agent.tasks.whole_rows import whole_rows
from sabot.client.session import Session
from sabot.dataflow.dataset import Dataset
from sabot.dataflow.stage import Join, PartitionSplit, Share, Split
from sabot.errors import LimitReached

MiB = 1 << 20
FILES, ROWS = 4, 100_000  # 30 MB in memory each, and next to nothing in the file
FULL = "the agent's memory is full: 7 bytes more do not fit beside 9 of 12"
MORE_PARTITIONS = r"more partitions, each smaller \(jobs\.partitions_per_slot, or repartition\(keys, n\) before\)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for index in range(FILES):
        numbers = pa.array(range(index * ROWS, (index + 1) * ROWS), pa.int64())
        one = pa.array([1] * ROWS, pa.int64())
        table = pa.table({"one": one, "number": numbers, "text": ["x" * 290] * ROWS})
        pq.write_table(table, folder / f"{index}.parquet", row_group_size=10_000)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(agents=1, slots=1, memory_bytes_max=64 * MiB) as running:
        yield running


@pytest.fixture
def session(cluster: LocalCluster) -> Iterator[Session]:
    with cluster.connect(progress=False, broadcast_bytes_max=0) as session:
        yield session


@pytest.fixture
def rows(session: Session, folder: Path) -> Dataset:
    return session.read_parquet(str(folder))


def check(job: Dataset, what: str, advice: str) -> None:
    with pytest.raises(LimitReached) as raised:
        job.run()
    assert raised.match(rf"{what} take more memory than there is \(the agent's memory is full: .*\); {advice}")
    assert raised.match(r", or raise memory\.bytes_max\n")
    assert raised.value.facts["limit"] == "memory.bytes_max"


def test_an_aggregate_without_keys_that_needs_all_rows(rows: Dataset) -> None:
    data = rows.append_column("f", pa.compute.multiply(pa.compute.field("number"), 1.5))
    wide = data.group_by([]).aggregate([("text", "count_distinct"), ("f", "approximate_median"), ("number", "tdigest")])
    check(wide, "all rows, which .*approximate_median.* without a key has to have at once,", "group by a key, or use")


def whole(table: pa.Table) -> pa.Table:
    return table


def test_a_function_that_is_called_with_a_whole_partition(rows: Dataset) -> None:
    data = rows.repartition(["one"], 1)
    job = data.map_partitions(whole, schema=data.schema, processes=False)
    what = "the rows of a partition, which whole is called with at once, and what it gives"
    check(job, what, rf"use {MORE_PARTITIONS}")


def test_a_join_of_which_one_key_gives_more_than_there_is_room_for(rows: Dataset, session: Session) -> None:
    few = session.from_table(pa.table({"one": pa.array([1] * 5_000, pa.int64()), "n": range(5_000)}))
    small = session.from_table(pa.table({"one": pa.array([1] * 3_000, pa.int64()), "n": range(3_000)}))
    what = r"the rows of partition \d+ which the inner join on 'one' is given or gives"
    for job in (
        rows.join(few, "one", join_type="inner"),
        small.join(small, "one", join_type="inner", right_suffix="_r").filter(pa.compute.field("n") >= 0),
    ):
        check(job, what, rf"use {MORE_PARTITIONS}; where")


JOIN = Join(keys=("k",), right_keys=("k",), join_type="inner", left_suffix=None, right_suffix=None, coalesce_keys=True)


@pytest.mark.parametrize(
    ("split", "named"),
    [
        (PartitionSplit(partition=3), "of partition 3 which"),
        (
            PartitionSplit(partition=3, share=Share(index=1, count=4, side=0, rows=(1, 1))),
            "of share 2 of 4 of the hot partition 3 which",
        ),
    ],
)
def test_a_share_of_a_hot_partition_is_named(split: Split, named: str) -> None:
    with pytest.raises(LimitReached, match=named) as raised, whole_rows(JOIN, split):
        raise pa.ArrowMemoryError(f"{FULL}; raise memory.bytes_max, or cut the job smaller")
    assert raised.match(r"filter or aggregate one side before the join, or raise memory\.bytes_max$")
    assert f"({FULL})" in str(raised.value)


def test_another_limit_is_left_as_it_is() -> None:
    disk = LimitReached("the disk is full", limit="spill.bytes_max")
    with pytest.raises(LimitReached) as raised, whole_rows(JOIN):
        raise disk
    assert raised.value is disk
