"""Runs a user's function of a whole partition: a task's rows are gathered, and go to it as one morsel."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa

from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.agent.tasks.whole_rows import whole_rows
from sabot.dataflow.execution import partition_step
from sabot.dataflow.function_steps import MapPartitions
from sabot.dataflow.partition_function import one_batch
from sabot.slots import MorselSource
from sabot.slots.operators import Pipeline
from sabot.slots.workers import WorkerPool


def partition_answers(
    step: MapPartitions, rows: pa.Table, calls: SlotCalls, *, workers: WorkerPool | None, source: MorselSource
) -> Iterator[list[pa.RecordBatch]]:
    """What the function gives for `rows`; it is not called where there are none."""
    if not rows.num_rows:
        return
    with whole_rows(step):
        batch = calls.call(partial(one_batch, rows, f"a partition that {step.name} is to be called with"))
        del rows  # what was copied together need not be held twice
        pipeline = Pipeline([partition_step(step)], workers=workers)
        answers = calls.run_morsels([batch], pipeline, source=source, whole=True)
    del batch
    yield answers
