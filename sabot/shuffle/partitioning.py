"""How rows are regrouped into partitions: by hash, in turn, by ranges of sort keys, by a column, all to all or to one.

Values only; `AttemptWriter` and `ShuffleTransport.send_rows` carry them out natively, in a slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc

from sabot.errors import UsageError
from sabot.native._native import RangeBounds

SortKey = tuple[str, str] | tuple[str, str, str]
Name = Literal["hash", "round_robin", "range", "column", "broadcast", "one"]


@dataclass(frozen=True, slots=True)
class HashPartitioning:
    """Rows with equal keys meet in one partition; without keys all rows go to partition 0 of 1."""

    keys: tuple[str, ...] = ()
    name: ClassVar[Name] = "hash"

    def __post_init__(self) -> None:
        if isinstance(self.keys, str) or not all(isinstance(key, str) for key in self.keys):
            raise UsageError(f"HashPartitioning takes the names of columns, such as ('a', 'b'), not {self.keys!r}.")


@dataclass(frozen=True, slots=True)
class RoundRobinPartitioning:
    """Rows are dealt out in turn."""

    name: ClassVar[Name] = "round_robin"
    keys: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True)
class ColumnPartitioning:
    """An int32 column names each row's partition, from 0; a null or a number out of range is a UsageError."""

    column: str
    name: ClassVar[Name] = "column"

    @property
    def keys(self) -> tuple[str, ...]:
        """What the audit binds the other columns to."""
        return (self.column,)


@dataclass(frozen=True, slots=True)
class BroadcastPartitioning:
    """Every partition gets every row; receipts count each copy. The audit binds the other columns to `keys`."""

    keys: tuple[str, ...] = ()
    name: ClassVar[Name] = "broadcast"


@dataclass(frozen=True, slots=True)
class OnePartitioning:
    """All rows of an attempt go to `partition`."""

    partition: int
    name: ClassVar[Name] = "one"
    keys: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class RangePartitioning:
    """Partition p has the rows from the p-th boundary on, and before the next one, in the order of `sorting`.

    `sorting` is as in `pyarrow.Table.sort_by`, with the null placement ("at_start" or "at_end", the default) as a third
    item; `boundaries` has the sort columns, in that order, and a row for each partition but the first. Equal keys meet
    in one partition; boundaries that are there twice make an empty one. With `tie_turn` (index, count) they do not:
    rows whose key is a boundary that is there several times go to one of its partitions, a later index to a later one.
    """

    sorting: tuple[SortKey, ...]
    boundaries: pa.RecordBatch
    tie_turn: tuple[int, int] = (0, 0)
    name: ClassVar[Name] = "range"

    def __post_init__(self) -> None:
        for key in self.sorting:
            _order_of(key)
        if not isinstance(self.boundaries, pa.RecordBatch) or tuple(self.boundaries.schema.names) != self.keys:
            raise UsageError(f"The boundaries must be a pyarrow.RecordBatch of the columns {list(self.keys)}.")

    @property
    def keys(self) -> tuple[str, ...]:
        """The sort columns."""
        return tuple(key[0] for key in self.sorting)

    @cached_property
    def bounds(self) -> RangeBounds:
        """The boundaries as the native partitioner takes them; UsageError where they are not in order."""
        return RangeBounds(self.boundaries, [_order_of(key) for key in self.sorting])

    @classmethod
    def from_sample(cls, sample: pa.Table, sorting: Sequence[SortKey], num_partitions: int) -> RangePartitioning:
        """Boundaries that cut `sample` into `num_partitions` ranges of about as many rows each."""
        if not isinstance(num_partitions, int) or num_partitions < 1:
            raise UsageError(f"num_partitions is {num_partitions!r}; it must be a whole number, at least 1.")
        if not isinstance(sample, pa.Table):
            raise UsageError(f"The sample must be a pyarrow.Table, not {type(sample).__name__}.")
        keys = [_order_of(key) and key[0] for key in sorting]
        if not keys or len(set(keys)) < len(keys):
            raise UsageError("Ranges need one sort key or more, such as [('x', 'ascending')], and each column once.")
        for key in keys:
            if sample.column_names.count(key) != 1:
                raise UsageError(f"The sample must have one column {key!r}; it has {', '.join(sample.column_names)}.")
        try:
            unordered = sample.select(keys).combine_chunks()
            ordered = unordered.take(pc.sort_indices(unordered, sort_keys=[*sorting]))
        except pa.ArrowException as error:
            raise UsageError(f"The sample cannot be sorted by {keys}: {error}") from error
        places = [place * len(ordered) // num_partitions for place in range(1, num_partitions) if len(ordered)]
        cuts = ordered.take(pa.array(places, pa.int64())).combine_chunks()
        batches = cuts.to_batches() or [pa.RecordBatch.from_pylist([], schema=cuts.schema)]
        return cls(tuple(sorting), batches[0])


Partitioning = (
    HashPartitioning
    | RoundRobinPartitioning
    | RangePartitioning
    | ColumnPartitioning
    | BroadcastPartitioning
    | OnePartitioning
)


def _order_of(key: SortKey) -> tuple[bool, bool]:
    """(descending, nulls first)."""
    name, order, *placement = key if isinstance(key, tuple | list) and len(key) >= 2 else ("", "")
    known = isinstance(name, str) and order in ("ascending", "descending")
    if not known or placement not in ([], ["at_start"], ["at_end"]):
        raise UsageError(
            f"The sort key {key!r} is not understood. Give (name, 'ascending' or 'descending'), and perhaps "
            "'at_start' or 'at_end' for nulls."
        )
    return order == "descending", placement == ["at_start"]


def bounds_of(partitioning: Partitioning) -> RangeBounds | None:
    """The native boundaries of a partitioning by range; None for all others."""
    return partitioning.bounds if isinstance(partitioning, RangePartitioning) else None


def check_partitioning(partitioning: object) -> None:
    """UsageError unless it is one of these, or None."""
    if partitioning is not None and not isinstance(partitioning, Partitioning):
        raise UsageError(
            f"partitioning must be one of sabot.shuffle's, such as HashPartitioning(('a',)), not {partitioning!r}."
        )


def check_columns(partitioning: Partitioning, schema: pa.Schema) -> None:
    """UsageError unless rows of `schema` have the columns that place them."""
    for key in partitioning.keys:
        if schema.get_field_index(key) < 0:
            raise UsageError(f"The rows have no column {key!r} to partition by; they have {schema.names}.")
