"""How much memory a task is expected to work with: what is reserved before it starts.

It is an estimate: a function may make any number of rows out of one. What a task takes beyond it is counted like
everything else, and refused where the limit would be passed. The factors are measured by benchmarks/memory.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sabot.agent.tasks.joins import PROBE_BYTES_MAX
from sabot.dataflow.function_steps import MapPartitions
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle
from sabot.dataflow.splits import part_bytes, piece_bytes, pieces_of
from sabot.dataflow.stage import (
    Aggregate,
    BroadcastShuffle,
    FilesSplit,
    HashShuffle,
    PartitionSplit,
    ResultOutput,
    RoundRobinShuffle,
    ScanInput,
    Share,
    ShuffleInput,
    Split,
    Stage,
    StoredSplit,
)

PIECES_AT_ONCE = 3
"""Of a scan: one is worked on while the next is read, and what came of it is about as large."""
TEXT_FACTOR = 2
"""Of the bytes of lines: they are held while their values are made, of which small numbers have four times as many."""
PARTITION_FACTOR = 4
"""Of a partition's bytes: its rows, the table that groups or joins them, and what comes of it. Measured: 3.0 for a
group for each row, 3.6 to 4.2 for a join, 2.8 for a sort; 1.0 where there are few groups."""
COPY_FACTOR = 6
"""Of a broadcast side's bytes: its rows, and the table by which they are found. Measured: 7.4 for rows of 16 bytes, 3.6
for rows of 64."""
PROBE_FACTOR = 2
"""Rows gathered to be joined with it, and what comes of them."""
_MOST = 1 << 62
SCATTER_FACTOR = 2
"""Rows gathered for a scatter, and their copy in partition order. Measured: 2.2."""


def working_bytes(
    stage: Stage,
    split: Split,
    *,
    stored_bytes: Callable[[int, int], int],
    row_bytes: Callable[[int], float],
    scatter_bytes_max: int,
    partition_bytes_max: int = 0,
    read_bytes_max: int = 0,
    grouped_bytes_max: int = 0,
    copies: Sequence[int] = (),
) -> int:
    """Bytes that `stage` works with on `split`; `stored_bytes(stage_id, partition)` is what this agent stores, and
    `row_bytes(stage_id)` the mean of a row. `partition_bytes_max` (0: all) of a partition are worked on at a time,
    `read_bytes_max` of a file's row groups, and `grouped_bytes_max` of what is grouped before it is sent.
    `copies` are the bytes of each that it joins."""
    given = scatter_bytes_max
    needed = 0
    match split:
        case StoredSplit(sent=sent):
            largest = max(stored_bytes(stage.stage_id, part) for _, partitions in sent for part in partitions)
            return min(largest, SCATTER_FACTOR * scatter_bytes_max)
        case FilesSplit():
            pieces = list(_piece_bytes(stage, split, read_bytes_max))
            given = sum(size for size, _ in pieces)
            most = read_bytes_max or _MOST
            needed = PIECES_AT_ONCE * max((min(size, most) if cut else size for size, cut in pieces), default=0)
        case PartitionSplit(share=Share(rows=rows)):
            assert isinstance(stage.input, ShuffleInput)
            sizes = (row_bytes(stage_id) for stage_id in stage.input.stage_ids)
            given = int(sum(count * size for count, size in zip(rows, sizes, strict=True)))
            needed = PARTITION_FACTOR * given
        case PartitionSplit():
            assert isinstance(stage.input, ShuffleInput)
            given = sum(stored_bytes(stage_id, split.partition) for stage_id in stage.input.stage_ids)
            at_once = min(given, partition_bytes_max) if partition_bytes_max else given
            needed = PARTITION_FACTOR * at_once
    if any(isinstance(step, MapPartitions) for step in stage.steps):
        needed = max(needed, PARTITION_FACTOR * given)  # all that the task reads is gathered
    if any(isinstance(step, Aggregate) and step.each_row is not None for step in stage.steps):
        needed += PARTITION_FACTOR * min(given, grouped_bytes_max or scatter_bytes_max)
    for copy in copies:
        needed += COPY_FACTOR * copy + PROBE_FACTOR * min(given, PROBE_BYTES_MAX, partition_bytes_max or _MOST)
    match stage.output:
        case ResultOutput():
            needed += min(given, partition_bytes_max) if partition_bytes_max else given
        case HashShuffle() | RoundRobinShuffle() | BroadcastShuffle() | HomeShuffle() | RangeShuffle():
            needed += SCATTER_FACTOR * min(given, scatter_bytes_max)
    return min(needed, _MOST)


def _piece_bytes(stage: Stage, split: FilesSplit, read_bytes_max: int) -> Iterator[tuple[int, bool]]:
    """Of each piece that is read, and whether some of it may be read at a time: row groups, as they are in memory,
    ranges of lines, or whole files."""
    row_bytes = stage.input.row_bytes if isinstance(stage.input, ScanInput) else 0.0
    for part in split.parts:
        for piece in pieces_of(part, piece_bytes(read_bytes_max)):
            if row_bytes and piece.rows is not None:
                yield int(piece.rows * row_bytes), True
            elif piece.byte_range is not None:
                yield TEXT_FACTOR * part_bytes(piece), False
            else:
                yield part_bytes(piece), False
