"""Functions of users that fail. The workers that call them import this module, and are spared what tests import."""

from __future__ import annotations

import pyarrow as pa


def explodes(batch: pa.RecordBatch) -> pa.RecordBatch:
    if batch.num_rows:
        raise ZeroDivisionError("seven")
    return batch


def exits(batch: pa.RecordBatch) -> pa.RecordBatch:
    if batch.num_rows:
        raise SystemExit(3)
    return batch
