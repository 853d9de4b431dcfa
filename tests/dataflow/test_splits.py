"""How a stage's input is dealt out to tasks."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.dataflow.splits import PIECE_BYTES, pieces_of, splits_of
from sabot.dataflow.stage import (
    FilePart,
    FilesSplit,
    JobPlan,
    PartitionSplit,
    ResultOutput,
    ScanInput,
    ShuffleInput,
    SourceFile,
    Split,
    Stage,
    TableInput,
    TablePiece,
    TableSplit,
)
from sabot.errors import InternalError
from tests.dataflow.files import source_file

SCHEMA = pa.schema([("x", pa.int64())])
MIB = 1 << 20


def splits(
    source: ScanInput | TableInput | ShuffleInput,
    *,
    num_partitions: int | None = None,
    split_bytes: int = 64 * MIB,
    slots: int = 2,
    pieces: tuple[TablePiece, ...] = (),
) -> list[Split]:
    stage = Stage(stage_id=0, label="", input=source, steps=(), output=ResultOutput(), schema=SCHEMA)
    plan = JobPlan(job_id="job", stages=(stage,), uploads={"t": pieces} if pieces else {})
    return splits_of(stage, plan, num_partitions=num_partitions, split_bytes=split_bytes, slots=slots)


def scan(*files: SourceFile, kind: Literal["parquet", "csv"] = "parquet") -> ScanInput:
    return ScanInput(format=kind, files=files, columns=None, schema=SCHEMA)


def parquet(path: str, *sizes: int, rows: int = 10) -> SourceFile:
    return source_file(path, rows=(rows,) * len(sizes), sizes=sizes)


def parts(found: list[Split]) -> list[list[tuple[str, tuple[int, ...] | None, int | None]]]:
    return [
        [(part.file.path, part.row_groups, part.rows) for part in split.parts]
        for split in found
        if isinstance(split, FilesSplit)
    ]


def test_small_files_are_split_so_that_every_slot_has_two_tasks() -> None:
    found = splits(scan(parquet("a", *[MIB] * 4), parquet("b", *[MIB] * 4)), slots=2)
    assert parts(found) == [
        [("a", (0, 1), 20)],
        [("a", (2, 3), 20)],
        [("b", (0, 1), 20)],
        [("b", (2, 3), 20)],
    ]


def test_few_row_groups_give_one_task_each() -> None:
    assert parts(splits(scan(parquet("a", 5, 5000), parquet("b", 1)), slots=8)) == [
        [("a", (0,), 10)],
        [("a", (1,), 10)],
        [("b", (0,), 10)],
    ]


def test_large_files_are_split_by_bytes() -> None:
    found = splits(scan(parquet("a", *[16 * MIB] * 40)), split_bytes=64 * MIB, slots=2)
    assert len(found) == 10
    assert {len(part[1] or ()) for split in parts(found) for part in split} == {4}


def test_one_split_may_span_files() -> None:
    found = splits(scan(*(parquet(name, 1) for name in "abcd")), slots=1)
    assert parts(found) == [[("a", (0,), 10), ("b", (0,), 10)], [("c", (0,), 10), ("d", (0,), 10)]]


def test_a_scan_without_row_groups_has_one_empty_task() -> None:
    assert splits(scan(parquet("a"))) == [FilesSplit(parts=())]
    assert splits(scan()) == [FilesSplit(parts=())]
    assert splits(scan(kind="csv")) == [FilesSplit(parts=())]


def test_row_groups_of_unknown_size_are_split_by_rows() -> None:
    file = source_file("a", rows=(1, 1, 1, 97))
    assert [len(split[0][1] or ()) for split in parts(splits(scan(file), slots=1))] == [3, 1]


def test_each_csv_file_is_a_task() -> None:
    files = (source_file("a"), source_file("b"))
    assert splits(scan(*files, kind="csv")) == [
        FilesSplit(parts=(FilePart(file=file, row_groups=None, rows=None),)) for file in files
    ]


def test_each_piece_of_a_table_is_a_task_in_the_order_of_pieces() -> None:
    pieces = tuple(TablePiece(index=index, flight_address=f"host:{index}", rows=1) for index in (1, 0))
    found = splits(TableInput(table_id="t", schema=SCHEMA), pieces=pieces)
    assert found == [TableSplit(table_id="t", piece=piece) for piece in reversed(pieces)]


def test_a_table_that_was_not_uploaded_is_named() -> None:
    with pytest.raises(InternalError, match="table t of job job was not uploaded"):
        splits(TableInput(table_id="t", schema=SCHEMA))


def test_each_partition_is_a_task() -> None:
    assert splits(ShuffleInput(stage_ids=(0, 1)), num_partitions=3) == [PartitionSplit(partition=p) for p in range(3)]


@pytest.mark.parametrize("num_partitions", [None, 0])
def test_a_shuffle_without_partitions_is_refused(num_partitions: int | None) -> None:
    with pytest.raises(InternalError, match="stage 0 reads a shuffle without partitions"):
        splits(ShuffleInput(stage_ids=(0,)), num_partitions=num_partitions)


@given(
    st.lists(st.lists(st.integers(0, 200), max_size=6), max_size=5),
    st.integers(1, 300),
    st.integers(1, 6),
)
def test_every_row_group_is_in_one_split_and_no_slot_is_left_idle(
    sizes: list[list[int]], split_bytes: int, slots: int
) -> None:
    files = [parquet(f"f{index}", *each) for index, each in enumerate(sizes)]
    found = splits(scan(*files), split_bytes=split_bytes, slots=slots)
    groups = [(path, group) for split in parts(found) for path, indices, _ in split for group in indices or ()]
    assert groups == [(f"f{index}", group) for index, each in enumerate(sizes) for group in range(len(each))]
    assert len(found) >= max(1, min(len(groups), 2 * slots))
    assert all(split.parts for split in found if isinstance(split, FilesSplit)) or not groups
    assert splits(scan(*files), split_bytes=split_bytes, slots=slots) == found


@pytest.mark.parametrize(("group_rows", "group_bytes", "at_once"), [(100, 1000, 50), (5_000, 1000, 3), (100, MIB, 8)])
def test_small_row_groups_are_read_together_while_their_rows_and_bytes_are_few(
    group_rows: int, group_bytes: int, at_once: int
) -> None:
    """Rows count, too: a footer tells how large a column is in its dictionary, which says little of it in memory."""
    file = source_file("x.parquet", rows=(group_rows,) * 50, sizes=(group_bytes,) * 50)
    part = FilePart(file=file, row_groups=tuple(range(50)), rows=50 * group_rows)
    pieces = list(pieces_of(part, PIECE_BYTES))
    assert [len(piece.row_groups or ()) for piece in pieces[:-1]] == [at_once] * (len(pieces) - 1)
    assert [group for piece in pieces for group in piece.row_groups or ()] == list(range(50))
    assert [piece.rows for piece in pieces] == [len(piece.row_groups or ()) * group_rows for piece in pieces]
