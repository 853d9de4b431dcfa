"""Steps over a stream of a task's batches. While the next are made, none of them holds any of those before."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from sabot.agent.tasks.partial_grouping import PartialGrouping
from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.agent.tasks.task_output import conform
from sabot.dataflow.execution import apply_table_step, pipeline_steps
from sabot.dataflow.sampling import Draws
from sabot.dataflow.stage import Aggregate, Draw
from sabot.slots import MorselSource
from sabot.slots.operators import Pipeline

Stream = Iterator[list[pa.RecordBatch]]


def morsels(pipeline: Pipeline, stream: Stream, source: MorselSource, calls: SlotCalls, *, whole: bool) -> Stream:
    # A generator would hold what it has been given while its answer is used and the next is made.
    return map(partial(calls.run_morsels, pipeline=pipeline, source=source, whole=whole), stream)


def drawn(step: Draw, task: int, stream: Stream, source: MorselSource, calls: SlotCalls) -> Stream:
    draws = Draws(step, task)

    def with_draws(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
        if not batches:
            return []
        add = partial(draws.add_to, pa.Table.from_batches(batches), step.name)
        answers: list[pa.RecordBatch] = calls.call(add, source=source).to_batches()
        return answers

    return map(with_draws, stream)


def grouped_in_part(
    step: Aggregate,
    stream: Stream,
    schema: pa.Schema,
    source: MorselSource,
    calls: SlotCalls,
    *,
    bytes_max: int,
) -> Stream:
    assert step.each_row is not None
    one_each = Pipeline(pipeline_steps([step.each_row]))
    run_plan = partial(calls.run_plan, source=source)
    grouping = PartialGrouping(
        step,
        schema,
        call=partial(calls.call, source=source),
        group=lambda rows: apply_table_step(step, [rows], run_plan),
        pass_on=lambda rows: morsels(one_each, rows, source, calls, whole=False),
        bytes_max=bytes_max,
    )
    return grouping.run(stream)


def gathered(stream: Stream, schema: pa.Schema, rows_max: int | None) -> pa.Table:
    """The stream as one table; with `rows_max` it is read no further than that many rows need, but begun even for none:
    a partition that nobody has read is not accounted for.
    """
    kept: list[pa.RecordBatch] = []
    rows = 0
    for batches in stream:
        kept.extend(conform(batch, schema) for batch in batches)
        rows += sum(batch.num_rows for batch in batches)
        if rows_max is not None and rows >= rows_max:
            break
    return pa.Table.from_batches(kept, schema)
