"""Sorting, grouping and joining a partition that is too large to be in memory at once: part by part.

Each part is gathered by reading the whole partition, which lies on disk by then, and leaving out what is of others. A
sort's parts are its first rows, the next ones and so on, by an order made of the sort columns alone. A grouping's and a
join's are those of further bits of the keys' hash. Where one key has too many rows for a part, they are grouped or
joined some at a time if that gives the same answer, and else refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from sabot.agent.tasks.joins import joined
from sabot.agent.tasks.large_input import LargeInput, Placed
from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.agent.tasks.task_output import Gather
from sabot.agent.tasks.whole_rows import MEMORY_KEY, MORE_PARTITIONS, PUT_TOGETHER, functions_of, named, whole_rows
from sabot.dataflow.columns import plain_schema, table_without_rows
from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.expressions import project_table
from sabot.dataflow.grouping import aggregate_name, target_columns
from sabot.dataflow.moments import MOMENTS_OF
from sabot.dataflow.stage import Aggregate, Aggregation, Join, PartitionSplit, Sort, Step
from sabot.dataflow.wire_form import wire_schema
from sabot.errors import LimitReached
from sabot.native._native import hash_keys, partition_of
from sabot.shuffle.stored_partition import Place
from sabot.slots import MorselSource

Batches = list[pa.RecordBatch]

_CLASSES_MIN, _CLASSES_MAX = 1 << 10, 1 << 20  # of further bits of the hash; a part has as many neighbours as fit
_CLASSES_A_PART = 64
_INT32_MAX = (1 << 31) - 1
_RANK = "rank"
_ORDER_BYTES = 24  # a row: where it lies, and two turns of what order it has
_AGAIN = frozenset({"sum", "min", "max", "any", "all", "product", "one", *MOMENTS_OF.values()})
"""Aggregates of which that of all rows is that of the parts' aggregates, whatever the order of the parts."""
_SIDES_CUT = {
    "inner": (0, 1),
    "left outer": (0,),
    "left semi": (0,),
    "left anti": (0,),
    "right outer": (1,),
    "right semi": (1,),
    "right anti": (1,),
    "full outer": (),
}
"""Which side of a join may meet the other some rows at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The rows after a stage's first step, where that works by parts, and the steps that are left."""

    stream: Iterator[Batches]
    schema: pa.Schema
    steps_left: tuple[Step, ...]


def step_by_parts(
    steps: Sequence[Step], given: Sequence[LargeInput], calls: SlotCalls, source: MorselSource, bytes_max: int
) -> Started:
    """A stage's first step over a large partition; or its rows some at a time, where that step does not ask for all."""
    by_parts = LargeSteps(calls=calls, source=source, bytes_max=bytes_max)
    first, left = (steps[0], tuple(steps[1:])) if steps else (None, ())
    schemas = [table_without_rows(one.schema) for one in given]
    match first:
        case Join():
            stream = by_parts.joined(first, given)
        case Sort():
            stream = by_parts.sorted(first, given[0])
        case Aggregate(each_row=None) if first.keys:
            stream = by_parts.grouped(first, given[0])
        case _:
            stream = map(pa.Table.to_batches, given[0].tables())
            return Started(stream=stream, schema=given[0].schema, steps_left=tuple(steps))
    return Started(stream=stream, schema=plain_schema(apply_table_step(first, schemas).schema), steps_left=left)


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeSteps:
    """The steps over partitions of which `bytes_max` are worked on at a time. When the next part is read, nothing here
    holds anything of the one before.
    """

    calls: SlotCalls
    source: MorselSource
    bytes_max: int

    def sorted(self, step: Sort, given: LargeInput) -> Iterator[Batches]:
        """The rows in order. Of all of them only the sort columns are in memory."""
        keys = list(dict.fromkeys(key[0] for key in step.sorting))
        order, starts = self._order(step, given, keys)
        rows_at_once = max(1, self.bytes_max * len(order) // max(1, given.num_bytes))
        for first in range(0, len(order), rows_at_once):
            ranks = _Ranks(order, dict(starts), first, first + rows_at_once)
            yield self._sorted_part(given, ranks)

    def _sorted_part(self, given: LargeInput, ranks: _Ranks) -> Batches:
        part = given.chosen(ranks.choose)
        batches: Batches = given.decoded(self.calls.call(partial(_by_rank, part), source=self.source)).to_batches()
        return batches

    def _order(self, step: Sort, given: LargeInput, keys: list[str]) -> tuple[pa.Array, dict[Place, int]]:
        """Which row comes as the how-manieth, and where the rows of each place begin."""
        found: list[tuple[Place, pa.RecordBatch]] = []
        size = 0
        for place, batch in given.placed():
            found.append((place, self.calls.call(partial(_copied, batch.select(keys)), source=self.source)))
            size += found[-1][1].nbytes + _ORDER_BYTES * batch.num_rows
            if size > 2 * self.bytes_max:
                what = f"the values of sort column {named(keys)} in one range of a sort"
                raise _too_large(what, self.bytes_max, f"use {MORE_PARTITIONS}")
        found.sort(key=lambda one: one[0])
        starts: dict[Place, int] = {}
        rows = 0
        for place, batch in found:
            starts.setdefault(place, rows)
            rows += batch.num_rows
        on_wire = wire_schema(given.schema)
        table = pa.Table.from_batches([batch for _, batch in found], pa.schema([on_wire.field(key) for key in keys]))
        options = pc.SortOptions(sort_keys=list(step.sorting))
        order = self.calls.call(
            lambda: pc.inverse_permutation(pc.sort_indices(table, options=options).cast(pa.int64())),
            source=self.source,
        )
        return order, starts

    def grouped(self, step: Aggregate, given: LargeInput) -> Iterator[Batches]:
        """The groups, those of a part of the keys at a time."""
        for part in self._parts([(given, step.keys)]):
            if part.fits:
                yield self._grouped_part(step, given, part)
            else:
                yield self._folded(step, given, part).to_batches()

    def _grouped_part(self, step: Aggregate, given: LargeInput, part: _Part) -> Batches:
        rows = given.decoded(given.chosen(part.of(given, step.keys).choose))
        batches: Batches = self._table(partial(apply_table_step, step, [rows])).to_batches()
        return batches

    def _folded(self, step: Aggregate, given: LargeInput, part: _Part) -> pa.Table:
        """The groups of rows that are never all in memory: each few are grouped with the groups so far."""
        bare = replace(step, finish=None, each_row=None)
        names = _names_again(bare, given.schema)
        if names is None:
            raise _too_large(
                f"the rows of one value of key column {named(step.keys)} that {functions_of(step)} has to have at once",
                self.bytes_max,
                f"use {PUT_TOGETHER}, or group by further keys",
            )
        groups: pa.Table | None = None
        for piece in self._pieces(given, part.of(given, step.keys)):
            groups = self._grouped_again(bare, groups, piece).rename_columns(names)
            del piece
        assert groups is not None  # a part has rows
        finals = [*step.keys, *(aggregate_name(aggregation) for aggregation in step.aggregations)]
        groups = groups.rename_columns(finals)
        if step.finish is not None:
            groups = self._table(partial(project_table, groups, step.finish.names, step.finish.expressions))
        return pa.Table.from_arrays(groups.columns, schema=plain_schema(groups.schema))

    def _grouped_again(self, step: Aggregate, groups: pa.Table | None, piece: pa.Table) -> pa.Table:
        rows = piece if groups is None else pa.concat_tables([groups, piece.select(groups.column_names)])
        return self._table(partial(apply_table_step, step, [rows]))

    def joined(self, join: Join, sides: Sequence[LargeInput]) -> Iterator[Batches]:
        """The join, of a part of the keys at a time."""
        keys = (join.keys, join.right_keys)
        for part in self._parts(list(zip(sides, keys, strict=True))):
            choices = [part.of(side, names) for side, names in zip(sides, keys, strict=True)]
            if part.fits:
                yield self._joined_part(join, sides, choices)
            else:
                yield from self._probed(join, sides, choices, part)

    def _joined_part(self, join: Join, sides: Sequence[LargeInput], choices: Sequence[_Choice]) -> Batches:
        tables = [side.decoded(side.chosen(choice.choose)) for side, choice in zip(sides, choices, strict=True)]
        with whole_rows(join, PartitionSplit(partition=sides[0].partition)):
            batches: Batches = joined(join, tables, self.source, self.calls).to_batches()
        return batches

    def _probed(
        self, join: Join, sides: Sequence[LargeInput], choices: Sequence[_Choice], part: _Part
    ) -> Iterator[Batches]:
        """The rows of one key: one side some rows at a time, each time with all of the other."""
        cut = [side for side in _SIDES_CUT[join.join_type] if part.bytes_of[1 - side] <= self.bytes_max]
        if not cut:
            raise _too_large(
                f"the rows of one value of key column {named(join.keys)} that a {join.join_type} join has to have at "
                "once",
                self.bytes_max,
                "filter or aggregate one side before the join",
            )
        side = max(cut, key=lambda one: part.bytes_of[one])
        other = sides[1 - side].decoded(sides[1 - side].chosen(choices[1 - side].choose))

        def probe(piece: pa.Table) -> Batches:
            tables = [piece, other] if side == 0 else [other, piece]
            with whole_rows(join, PartitionSplit(partition=sides[0].partition)):
                batches: Batches = joined(join, tables, self.source, self.calls).to_batches()
            return batches

        yield from map(probe, self._pieces(sides[side], choices[side]))

    def _pieces(self, given: LargeInput, choice: _Choice) -> Iterator[pa.Table]:
        """The chosen rows, in no order, some at a time."""

        def table(batches: Batches) -> pa.Table:
            return given.decoded(pa.Table.from_batches(batches))

        def chosen(placed: Placed) -> Batches:
            place, batch = placed
            return [self.calls.call(partial(choice.choose, batch, place), source=self.source)]

        return map(table, Gather(self.bytes_max).pieces(map(chosen, given.placed())))

    def _parts(self, sides: Sequence[tuple[LargeInput, tuple[str, ...]]]) -> list[_Part]:
        """Parts of at most `bytes_max` each, but where one class of hashes has more."""
        bytes_of = []
        wanted = _CLASSES_A_PART * sum(given.num_bytes for given, _ in sides) // self.bytes_max
        most = min(_CLASSES_MAX, _INT32_MAX // sides[0][0].num_partitions)
        classes = min(most, max(_CLASSES_MIN, wanted))
        for given, keys in sides:
            counts = [0] * classes
            choice = _Part(0, classes, classes).of(given, keys)
            for _, batch in given.placed():
                counted = self.calls.call(partial(choice.count, batch), source=self.source)
                for one, rows in counted:
                    counts[one] += rows
            row_bytes = given.num_bytes / max(1, sum(counts))
            bytes_of.append([row_bytes * rows for rows in counts])
        parts: list[_Part] = []
        first = 0
        while first < classes:
            sizes = [side[first] for side in bytes_of]
            end = first + 1
            while end < classes and sum(sizes) + sum(side[end] for side in bytes_of) <= self.bytes_max:
                sizes = [size + side[end] for size, side in zip(sizes, bytes_of, strict=True)]
                end += 1
            if any(sizes):
                parts.append(_Part(first, end, classes, tuple(sizes), fits=sum(sizes) <= self.bytes_max))
            first = end
        return parts

    def _table(self, make: partial[pa.Table]) -> pa.Table:
        return self.calls.call(make, source=self.source)


@dataclass(frozen=True, slots=True)
class _Part:
    """Classes of hashes, and what rows of theirs have in bytes, for each input."""

    first: int
    end: int
    classes: int
    bytes_of: tuple[float, ...] = ()
    fits: bool = True

    def of(self, given: LargeInput, keys: tuple[str, ...]) -> _Choice:
        numbers = given.num_partitions * self.classes
        before = given.partition * self.classes
        return _Choice(keys, numbers, before, before + self.first, before + self.end)


@dataclass(frozen=True, slots=True)
class _Choice:
    """The rows whose keys' hash has a class from `first` on and before `end`: by the bits after those that chose the
    partition."""

    keys: tuple[str, ...]
    numbers: int  # of classes of all partitions
    before: int  # those of the partitions before this one
    first: int
    end: int

    def choose(self, batch: pa.RecordBatch, _: Place) -> pa.RecordBatch:
        numbers = self._numbers(batch)
        return batch.filter(pc.and_(pc.greater_equal(numbers, self.first), pc.less(numbers, self.end)))

    def count(self, batch: pa.RecordBatch) -> list[tuple[int, int]]:
        counted = pc.value_counts(pc.subtract(self._numbers(batch), pa.scalar(self.before, pa.int32())))
        return list(zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True))

    def _numbers(self, batch: pa.RecordBatch) -> pa.Array:
        return partition_of(hash_keys(batch, list(self.keys)), self.numbers)


class _Ranks:
    """The rows that come as the `first` one and before the `end`: chosen in the order in which they are read, each with
    its rank as a last column."""

    def __init__(self, order: pa.Array, starts: dict[Place, int], first: int, end: int) -> None:
        self._order = order
        self._next = starts
        self._first = first
        self._end = end

    def choose(self, batch: pa.RecordBatch, place: Place) -> pa.RecordBatch:
        ranks = self._order.slice(self._next[place], batch.num_rows)
        self._next[place] += batch.num_rows
        mine = pc.and_(pc.greater_equal(ranks, self._first), pc.less(ranks, self._end))
        return batch.append_column(_RANK, ranks).filter(mine)


def _by_rank(part: pa.Table) -> pa.Table:
    ranks = part.column(part.num_columns - 1)
    return part.remove_column(part.num_columns - 1).take(pc.sort_indices(ranks))


def _copied(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch alone: a slice would keep the chunk that it is of."""
    columns = [pa.concat_arrays([column, column.slice(0, 0)]) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _names_again(step: Aggregate, schema: pa.Schema) -> list[str] | None:
    """The columns' names by which groups are rows again that the step may group; None where they are not."""
    targets = [target_columns(aggregation[0]) for aggregation in step.aggregations]
    names = [*step.keys, *(target[0] for target in targets if len(target) == 1)]
    if not all(_composes(aggregation) for aggregation in step.aggregations) or len(set(names)) < len(names):
        return None
    groups = apply_table_step(step, [table_without_rows(schema)]).schema
    return names if all(groups.field(i).type == schema.field(name).type for i, name in enumerate(names)) else None


def _composes(aggregation: Aggregation) -> bool:
    known = aggregation[1].removeprefix("hash_") in _AGAIN and len(target_columns(aggregation[0])) == 1
    return known and len(aggregation) < 3


def _too_large(what: str, bytes_max: int, advice: str) -> LimitReached:
    return LimitReached(
        f"{what} take more than the {bytes_max:,} bytes that a task may work on at a time; {advice}, or raise "
        f"{MEMORY_KEY}, of which that is an eighth",
        limit=MEMORY_KEY,
        step="by parts",
    )
