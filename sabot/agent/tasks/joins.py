"""Joins in the slots: of the two sides of a partition, and of rows as they come with a copy of the other side."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.agent.tasks.task_output import Gather, conform
from sabot.dataflow.columns import plain_schema, table_without_rows
from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.joining import join_plan
from sabot.dataflow.key_join import KeyJoin, key_join
from sabot.dataflow.stage import BroadcastJoin, Join
from sabot.slots import MorselSource

# Two of Acero's batches: a smaller join has nothing to share.
_SHARED_JOIN_ROWS_MIN = 65_536
PROBE_BYTES_MAX = 32 << 20
"""Rows that are joined with a copy at a time. Acero's join makes its hash table anew every time, some 10 ms for each
MiB of it."""


def joined(join: Join, sides: list[pa.Table], source: MorselSource, calls: SlotCalls) -> pa.Table:
    """The join of two tables by all slots, or where one is indexed by two. Aggregations run in one slot each: Acero's
    merge of what the threads have grouped costs more than a second slot brings.
    """
    run_plan = partial(calls.run_plan, source=source)
    if sum(side.num_rows for side in sides) < _SHARED_JOIN_ROWS_MIN:
        return calls.call(partial(apply_table_step, join, sides, run_plan), source=source)
    by_key = calls.call(partial(key_join, join, sides), source=source)
    if by_key is not None:
        return _probed(by_key, sides[1 - by_key.side], source, calls)
    plan = calls.call(partial(join_plan, sides[0], sides[1], join), source=source)
    answer = run_plan(plan.declaration)
    return calls.call(partial(plan.finish, answer), source=source)


def _probed(by_key: KeyJoin, rows: pa.Table, source: MorselSource, calls: SlotCalls) -> pa.Table:
    pieces = (partial(by_key.join, piece) for piece in by_key.pieces(rows))
    return pa.concat_tables(list(calls.call_ahead(pieces, source=source)))


def schema_joined(step: BroadcastJoin, schema: pa.Schema, copied: pa.Schema) -> pa.Schema:
    """The plain schema of what rows of `schema` give when they are joined with the copy."""
    sides = [table_without_rows(schema), table_without_rows(copied)]
    return plain_schema(apply_table_step(step.join, sides if step.side else sides[::-1]).schema)


def joined_with_copy(
    step: BroadcastJoin,
    stream: Iterator[list[pa.RecordBatch]],
    schema: pa.Schema,
    copy: pa.Table,
    *,
    source: MorselSource,
    calls: SlotCalls,
    bytes_max: int = 0,
) -> Iterator[list[pa.RecordBatch]]:
    """The stream's rows, of `schema`, joined with `copy`, about `bytes_max` (0: any number) or
    PROBE_BYTES_MAX at a time."""

    def sides_with(rows: pa.Table) -> list[pa.Table]:
        return [rows, copy] if step.side else [copy, rows]

    by_key = calls.call(partial(key_join, step.join, sides_with(table_without_rows(schema)), step.side), source=source)

    def join(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
        rows = pa.Table.from_batches([conform(batch, schema) for batch in batches], schema)
        if by_key is not None:
            answer = _probed(by_key, rows, source, calls)
        else:
            answer = joined(step.join, sides_with(rows), source, calls)
        return [batch for batch in answer.to_batches() if batch.num_rows]

    return map(join, Gather(min(PROBE_BYTES_MAX, bytes_max or PROBE_BYTES_MAX)).pieces(stream))
