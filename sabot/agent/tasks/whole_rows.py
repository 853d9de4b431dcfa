"""Says of rows that a step has to have at once, and that the memory has no room for, what the user can do about it.

The ledger refuses an allocation and knows nothing of the step it is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from sabot.agent.tasks.memory_limit import typed
from sabot.dataflow.function_steps import MapPartitions
from sabot.dataflow.stage import Aggregate, Join, PartitionSplit, Sort, Split, Step
from sabot.errors import LimitReached

MEMORY_KEY = "memory.bytes_max"
MORE_PARTITIONS = "more partitions, each smaller (jobs.partitions_per_slot, or repartition(keys, n) before)"
PUT_TOGETHER = (
    "aggregates that are put together of parts (sum, min, max, mean, count, any, all, product, stddev, variance)"
)


@contextmanager
def whole_rows(step: Step, split: Split | None = None) -> Iterator[None]:
    """For the block in which `step` has all its rows: LimitReached in place of the memory's refusal."""
    try:
        yield
    except (pa.ArrowMemoryError, LimitReached) as error:
        limit = typed(error)
        assert isinstance(limit, LimitReached)
        if limit.facts.get("limit") != MEMORY_KEY or "step" in limit.facts:
            raise
        what, advice = _what(step, split)
        refused = limit.message.partition(";")[0]
        told = LimitReached(
            f"{what} take more memory than there is ({refused}); {advice}, or raise {MEMORY_KEY}",
            **limit.facts,
            step=type(step).__name__,
        )
        for note in getattr(limit, "__notes__", []):
            told.add_note(note)
        raise told from error


def named(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def functions_of(step: Aggregate) -> str:
    return ", ".join(sorted({str(function).removeprefix("hash_") for _, function, *_ in step.aggregations}))


def _what(step: Step, split: Split | None) -> tuple[str, str]:
    """The rows in words, and what makes them fewer."""
    match step:
        case Join():
            rows = f"the rows of {_part(split)} which the {step.join_type} join on {named(step.keys)} is given or gives"
            return rows, (
                f"use {MORE_PARTITIONS}; where one key has most of the rows, on both sides, filter or aggregate one "
                "side before the join"
            )
        case Aggregate() if not step.keys:
            rows = f"all rows, which {functions_of(step)} without a key has to have at once,"
            return rows, f"group by a key, or use {PUT_TOGETHER}"
        case Aggregate():
            rows = f"the rows of {_part(split)} that are grouped by {named(step.keys)}, and their groups,"
            return rows, f"use {MORE_PARTITIONS}, or {PUT_TOGETHER}"
        case MapPartitions():
            rows = f"the rows of a partition, which {step.name} is called with at once, and what it gives"
            return rows, f"use {MORE_PARTITIONS}, or map_batches where the function needs no whole partition"
        case Sort():
            return f"the rows of {_part(split)} that are sorted by {named([key[0] for key in step.sorting])}", (
                f"use {MORE_PARTITIONS}"
            )
    return f"the rows of {_part(split)}", f"use {MORE_PARTITIONS}"


def _part(split: Split | None) -> str:
    if not isinstance(split, PartitionSplit):
        return "one task"
    share = split.share
    if share is None or share.count == 1:
        return f"partition {split.partition}"
    return f"share {share.index + 1} of {share.count} of the hot partition {split.partition}"
