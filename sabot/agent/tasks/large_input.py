"""One input of a partition that is too large to be in memory at once: read piece by piece, as often as it is wanted.

Each reading is audited like any other; the first one that comes to its end is the one that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.dataflow.columns import table_without_rows
from sabot.dataflow.execution import from_wire, wire_schema
from sabot.shuffle.stored_partition import Place, StoredPartition

Attempts = Sequence[tuple[int, int]]
"""(task, attempt) of each that sent rows."""
Placed = tuple[Place, pa.RecordBatch]
_TASKS_MAX = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What one stage sent to the partition: rows of `schema`, as they are worked on. `open` gives those that attempts
    sent, from the start, and `count` is told of each reading that came to its end."""

    schema: pa.Schema
    attempts: Attempts
    num_bytes: int
    open: Callable[[Attempts], StoredPartition]
    count: Callable[[Sequence[StoredPartition]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeInput:
    """The rows that one or several stages have sent, one stage's after the other's."""

    sent: tuple[Sent, ...]
    calls: SlotCalls
    timeout_s: float
    partition: int
    num_partitions: int

    @property
    def schema(self) -> pa.Schema:
        return self.sent[0].schema

    @property
    def num_bytes(self) -> int:
        return sum(one.num_bytes for one in self.sent)

    def placed(self) -> Iterator[Placed]:
        """All rows in wire form, in whatever order they lie, with their places in the true one."""
        for number, one in enumerate(self.sent):
            opened = one.open(one.attempts)
            for (task, sequence), batch in opened.placed_pieces(self.timeout_s):
                self.calls.wait_for_memory(self.timeout_s)
                if batch.num_rows:
                    yield (number * _TASKS_MAX + task, sequence), batch
                del batch
            one.count([opened])

    def tables(self) -> Iterator[pa.Table]:
        """All rows, in order, some at a time."""
        for one in self.sent:
            opened = one.open(one.attempts)
            if opened.arrange():
                yield from self._tables(opened)
                one.count([opened])
                continue
            # What lies on disk together is of several tasks: they are read one after the other.
            parts = [one.open([attempt]) for attempt in sorted(one.attempts)]
            for part in parts:
                if part.arrange():
                    yield from self._tables(part)
                else:
                    yield self.decoded(part.all(self.timeout_s))
            one.count(parts)

    def _tables(self, opened: StoredPartition) -> Iterator[pa.Table]:
        return map(self._table, opened.pieces(self.timeout_s))  # which holds none of them while the next is read

    def _table(self, batches: list[pa.RecordBatch]) -> pa.Table:
        self.calls.wait_for_memory(self.timeout_s)
        return self.decoded(pa.Table.from_batches(batches))

    def chosen(self, choose: Callable[[pa.RecordBatch, Place], pa.RecordBatch]) -> pa.Table:
        """What `choose`, run in slots, leaves of each piece: in order, and copied, so that nothing else is kept."""
        self.calls.wait_for_memory(self.timeout_s)  # the answer of the part before is on its way to disk, perhaps
        kept = [(place, self.calls.call(partial(choose, batch, place))) for place, batch in self.placed()]
        kept.sort(key=lambda one: one[0])
        schema = kept[0][1].schema if kept else wire_schema(self.schema)
        return pa.Table.from_batches([batch for _, batch in kept if batch.num_rows], schema)

    def decoded(self, table: pa.Table) -> pa.Table:
        """`table` from wire form to `schema`."""
        if not table.num_columns and len(self.schema):
            return table_without_rows(self.schema)
        if wire_schema(self.schema).types == self.schema.types:
            return pa.Table.from_arrays(table.columns, schema=self.schema) if table.num_columns else table
        return self.calls.call(lambda: from_wire(table, self.schema))
