"""Cuts a task's rows into batches of exactly so many rows, for functions that ask for that; the last may be smaller.

Where a batch lies within one that came it is a slice of it, else it is copied together, in a slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa

from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.agent.tasks.task_output import conform


def exact_batches(
    stream: Iterator[list[pa.RecordBatch]], schema: pa.Schema, rows: int, calls: SlotCalls
) -> Iterator[list[pa.RecordBatch]]:
    """The rows of `stream` in order, in batches of `rows`."""
    held: list[pa.RecordBatch] = []
    for batches in stream:
        held += [conform(batch, schema) for batch in batches if batch.num_rows]
        if sum(batch.num_rows for batch in held) >= rows:
            whole, held = calls.call(partial(_cut, held, rows))
            yield whole
            del whole
        del batches
    if held:
        yield [calls.call(partial(_joined, held))]


def _cut(batches: Sequence[pa.RecordBatch], rows: int) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
    """Batches of `rows`, and the pieces that are left over."""
    whole: list[pa.RecordBatch] = []
    pieces: list[pa.RecordBatch] = []
    missing = rows
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, missing)
            pieces.append(piece)
            start += piece.num_rows
            missing -= piece.num_rows
            if missing == 0:
                whole.append(_joined(pieces))
                pieces, missing = [], rows
    return whole, pieces


def _joined(pieces: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return pieces[0] if len(pieces) == 1 else pa.concat_batches(pieces)
