"""Partitions with more rows than their agent has memory: worked on by parts, by way of the disk, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sabot import LocalCluster
from sabot.client.session import Session
from sabot.errors import LimitReached

MIB = 1 << 20
MEMORY_BYTES = 128 * MIB
ROWS = 480_000  # of 328 bytes: a fifth more than the memory, and nine times what is worked on at a time
GROUP_ROWS = 5_000
HOT = 7


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`hot` has one value in nine of ten rows, `spread` hardly one twice, and `text` is the same in all: in the file it
    takes nothing, so that its row groups are dealt out as if they were small."""
    folder = tmp_path_factory.mktemp("rows")
    rows = pa.array(range(ROWS), pa.int64())
    spread = pc.bit_wise_and(pc.multiply(rows, pa.scalar(2_654_435_761, pa.int64())), (1 << 32) - 1)
    hot = pc.if_else(pc.equal(pc.bit_wise_and(rows, 15), 3), spread, pa.scalar(HOT, pa.int64()))
    table = pa.table({"hot": hot, "spread": spread, "row": rows, "text": pa.array(["x" * 300] * ROWS)})
    pq.write_table(table, folder / "0.parquet", row_group_size=GROUP_ROWS)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(agents=1, slots=1, memory_bytes_max=MEMORY_BYTES) as running:
        yield running


@pytest.fixture
def session(cluster: LocalCluster) -> Iterator[Session]:
    with cluster.connect(progress=False, broadcast_bytes_max=0) as session:
        yield session


def test_a_dictionary_packed_file_is_sorted_though_a_task_has_more_than_the_memory(
    session: Session, files: Path
) -> None:
    last, rows = -1, 0
    with session.read_parquet(str(files)).sort_by("spread").run() as result:
        for batch in result.to_batches():
            keys = batch["spread"]
            assert keys[0].as_py() >= last
            assert pc.all(pc.less_equal(keys.slice(0, len(keys) - 1), keys.slice(1))).as_py() is not False
            last, rows = keys[-1].as_py(), rows + len(keys)
        assert result.receipt.exact
    assert rows == ROWS


def test_one_key_with_most_rows_in_one_partition_is_sorted_by_parts_and_rows_keep_their_order(
    session: Session, files: Path
) -> None:
    last, rows = (-1, -1), 0
    with session.read_parquet(str(files)).repartition(["hot"], 1).sort_by("hot").run() as result:
        assert len(result.pieces()) == 1
        for batch in result.to_batches():
            for key, row in ((batch["hot"][at].as_py(), batch["row"][at].as_py()) for at in (0, len(batch) - 1)):
                assert (key, row) >= last
                last = (key, row)
            rows += len(batch)
        assert result.receipt.exact
    assert rows == ROWS


def test_a_partition_is_grouped_whose_groups_have_all_of_its_rows(session: Session, files: Path) -> None:
    data = session.read_parquet(str(files)).repartition(["spread"], 1)
    with data.group_by("spread").aggregate([("text", "list"), ("row", "sum")]).run() as result:
        rows = sum(len(batch) for batch in result.to_batches())
        assert result.receipt.exact
    assert rows == ROWS


def test_a_key_that_cannot_be_grouped_at_once_is_named(session: Session, files: Path) -> None:
    with pytest.raises(LimitReached, match=r"key column 'hot' that list has to have at once.*memory\.bytes_max"):
        session.read_parquet(str(files)).group_by("hot").aggregate([("text", "list")]).run()


def test_a_join_of_partitions_beyond_memory_with_a_hot_key(session: Session, files: Path) -> None:
    left = session.read_parquet(str(files)).repartition(["hot"], 1)
    right = session.from_table(pa.table({"hot": [HOT, 12345], "word": ["seven", "other"]}))
    with left.join(right, "hot", join_type="left outer").run() as result:
        words = rows = 0
        for batch in result.to_batches():
            words += len(batch) - batch["word"].null_count
            rows += len(batch)
        assert result.receipt.exact
    assert (rows, words) == (ROWS, ROWS - ROWS // 16)
