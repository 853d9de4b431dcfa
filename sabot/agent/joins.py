"""Joins in the slots: of the two sides of a partition, and of rows as they come with a copy of the other side."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from sabot.agent.slot_calls import SlotCalls
from sabot.agent.task_output import Gather, conform
from sabot.dataflow.columns import plain_schema
from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.joining import join_plan
from sabot.dataflow.stage import BroadcastJoin, Join
from sabot.slots import MorselSource

# Two of Acero's batches: a smaller join has nothing to share.
_SHARED_JOIN_ROWS_MIN = 65_536
PROBE_BYTES_MAX = 32 << 20
"""Rows that are joined with a copy at a time. Every time its hash table is made anew, some 10 ms for each MiB of it."""


def joined(join: Join, sides: list[pa.Table], source: MorselSource, calls: SlotCalls) -> pa.Table:
    """The join of two tables by all slots. Aggregations run in one slot each: Acero's merge of what the threads have
    grouped costs more than a second slot brings.
    """
    run_plan = partial(calls.run_plan, source=source)
    if sum(side.num_rows for side in sides) < _SHARED_JOIN_ROWS_MIN:
        return calls.call(partial(apply_table_step, join, sides, run_plan), source=source)
    plan = calls.call(partial(join_plan, sides[0], sides[1], join), source=source)
    answer = run_plan(plan.declaration)
    return calls.call(partial(plan.finish, answer), source=source)


def schema_joined(step: BroadcastJoin, schema: pa.Schema, copied: pa.Schema) -> pa.Schema:
    """The plain schema of what rows of `schema` give when they are joined with the copy."""
    sides = [schema.empty_table(), copied.empty_table()]
    return plain_schema(apply_table_step(step.join, sides if step.side else sides[::-1]).schema)


def joined_with_copy(
    step: BroadcastJoin,
    stream: Iterator[list[pa.RecordBatch]],
    schema: pa.Schema,
    copy: pa.Table,
    *,
    source: MorselSource,
    calls: SlotCalls,
) -> Iterator[list[pa.RecordBatch]]:
    """The stream's rows, of `schema`, joined with `copy`, about PROBE_BYTES_MAX at a time."""
    gather = Gather(PROBE_BYTES_MAX)

    def join(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
        rows = pa.Table.from_batches([conform(batch, schema) for batch in batches], schema)
        sides = [rows, copy] if step.side else [copy, rows]
        return [batch for batch in joined(step.join, sides, source, calls).to_batches() if batch.num_rows]

    for batches in stream:
        for piece in gather.add(batches):
            yield join(piece)
    rest = gather.rest()
    if rest:
        yield join(rest)
