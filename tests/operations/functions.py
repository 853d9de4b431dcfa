"""The user's functions. They are imported by every worker that calls them: what a module imports costs each time."""

from __future__ import annotations

import uuid

import pyarrow as pa
import pyarrow.compute as pc


def with_twice(batch: pa.RecordBatch) -> pa.RecordBatch:
    """One column more, and not the row numbered 3."""
    twice = pc.multiply(batch["i"], pa.scalar(2, pa.int64()))
    return batch.append_column("twice", twice).filter(pc.field("i") != 3)


def fails_on_some(batch: pa.RecordBatch) -> pa.RecordBatch:
    if any(number & 7 == 4 for number in batch["i"].to_pylist()):
        raise ValueError("one of eight")
    return batch


def placed(rows: pa.Table) -> pa.Table:
    """A name for the partition."""
    return rows.append_column("place", pa.array([uuid.uuid4().hex] * len(rows), pa.string()))


def whole_groups(rows: pa.Table) -> pa.Table:
    return rows.group_by("k").aggregate([("i", "sum"), ([], "count_all")])
