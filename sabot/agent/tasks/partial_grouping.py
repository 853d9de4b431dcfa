"""Grouping a task's rows before they are sent, given up where it hardly reduces them.

The first rows are looked at. Where equal keys lie side by side, as in files sorted by them, each run of them is a
group, without a hash table, or, where the types do not allow that, rows are grouped piece by piece: a small table stays
in the cache, and nothing is gained by a larger one. Where nearly each row is a group, the others go on as groups of one
row, which costs a projection in the place of a table. Else the others are grouped all at once, or as many as may be in
memory together. The final grouping gives the same answer in each case. What is decided depends on the rows and their
order alone, so that a task that is replayed on the same rows decides the same, as long as they fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import partial
from typing import Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from sabot.agent.tasks.task_output import conform
from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.run_grouping import group_runs
from sabot.dataflow.stage import Aggregate

Batches = list[pa.RecordBatch]
T = TypeVar("T")

PROBED_ROWS = 262_144
"""Enough for a few groups of many rows each to show, and few enough that a hash table of them stays in the cache."""

_GIVEN_UP_ABOVE = 0.75  # groups per row
_RUNS_PER_GROUP_MAX = 1.25
_RUNS_LOOKED_AT = 16_384
_ANY_BYTES = 1 << 62


class _Way(Enum):
    """What is done with the rows after the first ones."""

    RUNS = "a group for each run"
    PIECES = "piece by piece"
    WHOLE = "all at once"
    NOT_AT_ALL = "a group for each row"


class InSlot(Protocol):
    """Gives what the function gives, called in a slot."""

    def __call__(self, function: Callable[[], T]) -> T: ...


class PartialGrouping:
    """The `step` over one task's rows. `call` runs in a slot what it is given; `group` hashes rows there, and `pass_on`
    makes a group of each row, in slots, too. Rows of about `bytes_max` (0: any number) are grouped at a time.
    """

    def __init__(
        self,
        step: Aggregate,
        schema: pa.Schema,
        *,
        call: InSlot,
        group: Callable[[pa.Table], pa.Table],
        pass_on: Callable[[Iterator[Batches]], Iterator[Batches]],
        probed_rows: int = PROBED_ROWS,
        bytes_max: int = 0,
    ) -> None:
        self._step = step
        self._schema = schema
        self._call = call
        self._group = group
        self._pass_on = pass_on
        self._probed_rows = probed_rows
        self._bytes_max = bytes_max or _ANY_BYTES

    def run(self, stream: Iterator[Batches]) -> Iterator[Batches]:
        """The stream's rows as partial groups, of which a key may have several."""
        rows = _Rows(stream)
        piece = rows.first(self._probed_rows, self._bytes_max)
        groups, way = self._call(partial(self._probe, self._table(piece)))
        del piece
        yield groups.to_batches()
        del groups
        if way is _Way.NOT_AT_ALL:
            yield from self._pass_on(rows)
            return
        wanted = None if way is _Way.WHOLE else self._probed_rows
        # Nothing of the rows before is held while the next are gathered.
        while piece := rows.first(wanted, self._bytes_max):
            grouped = partial(self._grouped, self._table(piece), way)
            del piece
            groups = self._call(grouped)
            del grouped
            yield groups.to_batches()
            del groups

    def _table(self, piece: Batches) -> pa.Table:
        return pa.Table.from_batches([conform(batch, self._schema) for batch in piece], self._schema)

    def _probe(self, rows: pa.Table) -> tuple[pa.Table, _Way]:
        runs = group_runs(self._step, rows, runs_max=rows.num_rows // 2, ascending=False)
        if runs is not None and self._are_groups(runs.slice(0, _RUNS_LOOKED_AT)):
            return runs, _Way.RUNS
        groups = self._group(rows)
        if groups.num_rows > _GIVEN_UP_ABOVE * rows.num_rows:
            return groups, _Way.NOT_AT_ALL
        full = rows.num_rows >= self._probed_rows
        pieces = full and _count_runs(rows, self._step.keys) <= _RUNS_PER_GROUP_MAX * groups.num_rows
        return groups, _Way.PIECES if pieces else _Way.WHOLE

    def _grouped(self, rows: pa.Table, way: _Way) -> pa.Table:
        runs = None
        if way is _Way.RUNS:
            runs = group_runs(self._step, rows, runs_max=rows.num_rows // 2, ascending=False)
        return self._group(rows) if runs is None else runs

    def _are_groups(self, runs: pa.Table) -> bool:
        """Whether the same keys seldom come again in another run."""
        keys = apply_table_step(Aggregate(keys=self._step.keys, aggregations=()), [runs.select(list(self._step.keys))])
        return bool(runs.num_rows <= _RUNS_PER_GROUP_MAX * keys.num_rows)


class _Rows:
    """What is left of a stream of batches."""

    def __init__(self, stream: Iterator[Batches]) -> None:
        self._stream = stream
        self._back: Batches = []

    def __iter__(self) -> _Rows:
        return self

    def __next__(self) -> Batches:
        if self._back:
            back, self._back = self._back, []
            return back
        return next(self._stream)

    def first(self, rows_wanted: int | None, bytes_max: int) -> Batches:
        """Exactly that many rows, however the batches are cut, or all, or those of the first batches that have as many
        bytes.
        """
        first: Batches = []
        left = rows_wanted
        for batches in self:
            for position, batch in enumerate(batches):
                if not batch.num_rows:
                    continue
                first.append(batch if left is None else batch.slice(0, left))
                bytes_max -= first[-1].nbytes
                if left is not None:
                    left -= first[-1].num_rows
                if left == 0 or bytes_max <= 0:
                    rest = [batch.slice(first[-1].num_rows), *batches[position + 1 :]]
                    self._back = [batch for batch in rest if batch.num_rows]
                    return first
        return first


def _count_runs(rows: pa.Table, keys: Sequence[str]) -> int:
    changes = [pc.not_equal(_plain(rows[key].slice(1)), _plain(rows[key].slice(0, rows.num_rows - 1))) for key in keys]
    changed = changes[0].fill_null(True)
    for change in changes[1:]:
        changed = pc.or_(changed, change.fill_null(True))
    return 1 + int(pc.sum(changed).as_py() or 0)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
