"""Into how many ranges a sort is cut, and where: by samples of its keys. Pure.

As many ranges as make each one small enough to be sorted in memory, and as many as the slots want where there are rows
enough for that; few rows are one range. A key with so many rows that it would fill several ranges gets them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.ranges import RangeShuffle

RANGES_MAX = 512
"""Partitions that are opened for a range shuffle before it is known how many it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRule:
    """A range has at most about `bytes_max`, and `rows_min` rows where that leaves each slot its ranges."""

    bytes_max: int = 32 << 20
    rows_min: int = 65_536

    @classmethod
    def within(cls, memory_bytes_max: int) -> RangeRule:
        """For agents with that much memory, 0 for any: a sort takes several times its range, and tasks run at once."""
        most = cls().bytes_max
        return cls(bytes_max=min(most, max(1 << 20, memory_bytes_max // 32)) if memory_bytes_max else most)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSample:
    """What a task told of its keys, an Arrow IPC stream, and how many rows that stands for."""

    rows: int
    keys: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """How a RangeShuffle is cut: `boundaries` is an Arrow IPC stream of the sort columns, one row less than there are
    ranges. Chosen once; every attempt of every task sends by the same.
    """

    count: int
    boundaries: bytes


def choose_ranges(
    output: RangeShuffle,
    samples: Sequence[TaskSample],
    *,
    row_bytes: float,
    ranges_wanted: int,
    rule: RangeRule,
) -> Ranges:
    """Ranges of about as many rows each; `ranges_wanted` are enough for all slots."""
    rows = sum(sample.rows for sample in samples)
    tables = [pa.ipc.open_stream(sample.keys).read_all() for sample in samples]
    for_memory = -(-int(rows * row_bytes) // rule.bytes_max)
    count = max(1, min(RANGES_MAX, max(for_memory, min(ranges_wanted, rows // rule.rows_min))))
    keys = pa.concat_tables(tables).combine_chunks()
    if not keys.num_rows:
        count = 1
    weights = [
        sample.rows / table.num_rows
        for sample, table in zip(samples, tables, strict=True)
        for _ in range(table.num_rows)
    ]
    order = pc.sort_indices(keys, sort_keys=list(output.sorting))
    reached = pc.cumulative_sum(pa.array(weights, pa.float64()).take(order)).to_pylist()
    places = [min(bisect_right(reached, reached[-1] * cut / count), len(reached) - 1) for cut in range(1, count)]
    boundaries = keys.take(order.take(pa.array(places, pa.int64())))
    return Ranges(count=count, boundaries=_packed(boundaries.combine_chunks()))


def _packed(boundaries: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, boundaries.schema) as writer:
        writer.write_table(boundaries)
    return bytes(sink.getvalue())
