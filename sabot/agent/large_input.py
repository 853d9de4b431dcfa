"""One input of a partition that is too large to be in memory at once: read piece by piece, as often as it is wanted.

Each reading is audited like any other; the first one that comes to its end is the one that counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from sabot.agent.slot_calls import SlotCalls
from sabot.dataflow.execution import from_wire, wire_schema
from sabot.shuffle.stored_partition import Place, StoredPartition

Attempts = Sequence[tuple[int, int]]
"""(task, attempt) of each that sent rows."""
Placed = tuple[Place, pa.RecordBatch]


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeInput:
    """`open` gives the rows that these attempts sent, from the start; `schema` is that of the rows as they are worked
    on, and `count` is told of the first reading that came to its end."""

    schema: pa.Schema
    attempts: Attempts
    open: Callable[[Attempts], StoredPartition]
    count: Callable[[Sequence[StoredPartition]], None]
    calls: SlotCalls
    timeout_s: float
    num_bytes: int
    partition: int
    num_partitions: int

    def placed(self) -> Iterator[Placed]:
        """All rows in wire form, in whatever order they lie, with their places in the true one."""
        opened = self.open(self.attempts)
        for place, batch in opened.placed_pieces(self.timeout_s):
            self.calls.wait_for_memory(self.timeout_s)
            if batch.num_rows:
                yield place, batch
        self.count([opened])

    def tables(self) -> Iterator[pa.Table]:
        """All rows, in order, some at a time."""
        opened = self.open(self.attempts)
        if opened.arrange():
            yield from self._tables(opened)
            self.count([opened])
            return
        # What lies on disk together is of several tasks: they are read one after the other.
        parts = [self.open([attempt]) for attempt in sorted(self.attempts)]
        for part in parts:
            if part.arrange():
                yield from self._tables(part)
            else:
                yield self.decoded(part.all(self.timeout_s))
        self.count(parts)

    def _tables(self, opened: StoredPartition) -> Iterator[pa.Table]:
        for batches in opened.pieces(self.timeout_s):
            self.calls.wait_for_memory(self.timeout_s)
            yield self.decoded(pa.Table.from_batches(batches))

    def chosen(self, choose: Callable[[pa.RecordBatch, Place], pa.RecordBatch]) -> pa.Table:
        """What `choose`, run in slots, leaves of each piece: in order, and copied, so that nothing else is kept."""
        kept = [(place, self.calls.call(partial(choose, batch, place))) for place, batch in self.placed()]
        kept.sort(key=lambda one: one[0])
        schema = kept[0][1].schema if kept else wire_schema(self.schema)
        return pa.Table.from_batches([batch for _, batch in kept if batch.num_rows], schema)

    def decoded(self, table: pa.Table) -> pa.Table:
        """`table` from wire form to `schema`."""
        if not table.num_columns and len(self.schema):
            return self.schema.empty_table()
        if wire_schema(self.schema).types == self.schema.types:
            return pa.Table.from_arrays(table.columns, schema=self.schema) if table.num_columns else table
        return self.calls.call(lambda: from_wire(table, self.schema))
