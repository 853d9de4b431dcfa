"""What is reserved for a task follows what it is given to work on."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from sabot.agent.tasks.joins import PROBE_BYTES_MAX
from sabot.agent.tasks.task_limits import TaskLimits
from sabot.agent.tasks.working_memory import (
    COPY_FACTOR,
    PARTITION_FACTOR,
    PIECES_AT_ONCE,
    PROBE_FACTOR,
    SCATTER_FACTOR,
    working_bytes,
)
from sabot.config import Config
from sabot.dataflow.aggregation import split_aggregation
from sabot.dataflow.stage import (
    FilePart,
    FilesSplit,
    HashShuffle,
    Output,
    PartitionSplit,
    ResultOutput,
    ScanInput,
    Share,
    ShuffleInput,
    SourceFile,
    Stage,
    Step,
)

MiB = 1 << 20
SCATTER_MAX = 32 * MiB
SHUFFLE = HashShuffle(keys=("k",), num_partitions=None)
SCHEMA = pa.schema([("k", pa.int64())])


def stage(source: ScanInput | ShuffleInput, output: Output) -> Stage:
    return Stage(stage_id=5, label="test", input=source, steps=(), output=output, schema=SCHEMA)


def needed(
    split: FilesSplit | PartitionSplit,
    output: Output,
    stored: dict[tuple[int, int], int] | None = None,
    *,
    copies: tuple[int, ...] = (),
    partition_bytes_max: int = 0,
    row_bytes: float = 0.0,
    read_bytes_max: int = 0,
) -> int:
    source = (
        ScanInput(format="parquet", files=(), columns=None, schema=SCHEMA, row_bytes=row_bytes)
        if isinstance(split, FilesSplit)
        else ShuffleInput(stage_ids=(1, 2))
    )
    given = stored or {}
    return working_bytes(
        stage(source, output),
        split,
        stored_bytes=lambda stage_id, partition: given[stage_id, partition],
        row_bytes=lambda stage_id: {1: 100.0, 2: 10.0}[stage_id],
        scatter_bytes_max=SCATTER_MAX,
        copies=copies,
        partition_bytes_max=partition_bytes_max,
        read_bytes_max=read_bytes_max,
    )


def file(*row_group_bytes: int, size_bytes: int = 0) -> SourceFile:
    return SourceFile(
        path="x",
        size_bytes=size_bytes,
        modified_ns=0,
        row_group_rows=(1,) * len(row_group_bytes),
        row_group_bytes=row_group_bytes,
    )


def test_scan_needs_its_largest_row_groups_and_a_scatter() -> None:
    parts = (FilePart(file=file(10 * MiB, 50 * MiB, 20 * MiB), row_groups=(0, 2), rows=2),)
    assert needed(FilesSplit(parts=parts), SHUFFLE) == PIECES_AT_ONCE * 20 * MiB + SCATTER_FACTOR * 30 * MiB


def test_scan_of_packed_row_groups_needs_what_they_have_in_memory_or_what_is_read_of_them_at_a_time() -> None:
    parts = (FilePart(file=file(MiB, MiB), row_groups=(0, 1), rows=2),)  # a row in each
    alone = (FilePart(file=file(MiB), row_groups=(0,), rows=1),)
    all_of_it = needed(FilesSplit(parts=alone), SHUFFLE, row_bytes=50 * MiB)
    assert all_of_it == PIECES_AT_ONCE * 50 * MiB + SCATTER_FACTOR * SCATTER_MAX
    some_at_a_time = needed(FilesSplit(parts=parts), SHUFFLE, row_bytes=50 * MiB, read_bytes_max=12 * MiB)
    assert some_at_a_time == PIECES_AT_ONCE * 12 * MiB + SCATTER_FACTOR * SCATTER_MAX


def test_scan_that_groups_before_it_sends_needs_the_rows_and_the_table_that_groups_them() -> None:
    split = FilesSplit(parts=(FilePart(file=file(20 * MiB), row_groups=(0,), rows=1),))
    partial = split_aggregation(("k",), (("k", "sum"),), SCHEMA)
    assert partial is not None

    def bytes_of(steps: tuple[Step, ...]) -> int:
        scan = stage(ScanInput(format="parquet", files=(), columns=None, schema=SCHEMA), SHUFFLE)
        return working_bytes(
            replace(scan, steps=steps),
            split,
            stored_bytes=lambda *_: 0,
            row_bytes=lambda _: 0.0,
            scatter_bytes_max=SCATTER_MAX,
            grouped_bytes_max=6 * MiB,
        )

    assert bytes_of((partial.partial,)) - bytes_of(()) == PARTITION_FACTOR * 6 * MiB


def test_scan_of_a_file_of_unknown_row_groups_needs_the_file() -> None:
    parts = (FilePart(file=file(size_bytes=40 * MiB), row_groups=None, rows=None),)
    assert needed(FilesSplit(parts=parts), SHUFFLE) == PIECES_AT_ONCE * 40 * MiB + SCATTER_FACTOR * SCATTER_MAX


@pytest.mark.parametrize(("output", "more"), [(ResultOutput(), 3 * MiB), (SHUFFLE, SCATTER_FACTOR * 3 * MiB)])
def test_partition_needs_a_multiple_of_what_is_stored_of_all_its_inputs(output: Output, more: int) -> None:
    stored = {(1, 7): MiB, (2, 7): 2 * MiB}
    assert needed(PartitionSplit(partition=7), output, stored) == PARTITION_FACTOR * 3 * MiB + more


def test_a_large_partition_needs_what_is_worked_on_of_it_at_a_time() -> None:
    stored = {(1, 7): 100 * MiB, (2, 7): 20 * MiB}
    at_once = needed(PartitionSplit(partition=7), ResultOutput(), stored, partition_bytes_max=16 * MiB)
    assert at_once == PARTITION_FACTOR * 16 * MiB + 16 * MiB
    all_of_it = needed(PartitionSplit(partition=7), ResultOutput(), stored, partition_bytes_max=200 * MiB)
    assert all_of_it == PARTITION_FACTOR * 120 * MiB + 120 * MiB


@pytest.mark.parametrize("memory", [64 * MiB, 96 * MiB, 1 << 30])
@pytest.mark.parametrize("groups", [False, True], ids=["plain", "groups"])
def test_what_a_scan_reads_at_a_time_fits_into_the_memory_with_what_it_takes(memory: int, groups: bool) -> None:
    limits = TaskLimits.of(Config(), memory_bytes_max=memory)
    partial = split_aggregation(("k",), (("k", "sum"),), SCHEMA)
    assert partial is not None
    scan = ScanInput(format="parquet", files=(), columns=None, schema=SCHEMA, row_bytes=float(memory))
    for output in (ResultOutput(), SHUFFLE):
        most = working_bytes(
            replace(stage(scan, output), steps=(partial.partial,) if groups else ()),
            FilesSplit(parts=(FilePart(file=file(MiB), row_groups=(0,), rows=1),)),
            stored_bytes=lambda *_: 0,
            row_bytes=lambda _: 0.0,
            scatter_bytes_max=limits.scatter_bytes_max,
            partition_bytes_max=limits.partition_bytes_max,
            read_bytes_max=limits.read_bytes_max,
            grouped_bytes_max=limits.grouped_bytes_max,
        )
        assert most <= 0.75 * memory


@pytest.mark.parametrize("memory", [96 * MiB, 1 << 30])
def test_what_is_worked_on_at_a_time_fits_into_the_memory_with_what_it_takes(memory: int) -> None:
    limits = TaskLimits.of(Config(), memory_bytes_max=memory)
    stored = {(1, 7): memory, (2, 7): memory}
    for output in (ResultOutput(), SHUFFLE):
        most = working_bytes(
            stage(ShuffleInput(stage_ids=(1, 2)), output),
            PartitionSplit(partition=7),
            stored_bytes=lambda stage_id, partition: stored[stage_id, partition],
            row_bytes=lambda _: 1.0,
            scatter_bytes_max=limits.scatter_bytes_max,
            partition_bytes_max=limits.partition_bytes_max,
        )
        assert most <= 0.75 * memory
    assert TaskLimits.of(Config(), memory_bytes_max=0).partition_bytes_max == 0


def test_share_needs_what_its_rows_take_though_nothing_of_them_is_stored_here() -> None:
    share = Share(index=1, count=2, side=0, rows=(1000, 50))
    given = 1000 * 100 + 50 * 10
    assert needed(PartitionSplit(partition=7, share=share), ResultOutput()) == PARTITION_FACTOR * given + given


@pytest.mark.parametrize(("group_bytes", "joined_at_once"), [(10 * MiB, 10 * MiB), (50 * MiB, PROBE_BYTES_MAX)])
def test_join_with_copies_needs_their_tables_and_the_rows_that_meet_them(group_bytes: int, joined_at_once: int) -> None:
    split = FilesSplit(parts=(FilePart(file=file(group_bytes), row_groups=(0,), rows=1),))
    more = needed(split, ResultOutput(), copies=(2 * MiB, 3 * MiB)) - needed(split, ResultOutput())
    assert more == COPY_FACTOR * 5 * MiB + 2 * PROBE_FACTOR * joined_at_once
