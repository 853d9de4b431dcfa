"""Batches on which a user's function failed: kept with what went wrong, instead of failing the job.

Such a batch goes back as it came, with the failure in its schema's metadata, where no answer has any. Workers load this
module, so it imports little.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass

import pyarrow as pa

from sabot.dataflow.checked_function import CheckedFunction
from sabot.dataflow.columns import plain_schema

QUARANTINE_BYTES_MAX = 8 << 20
"""What a stage keeps of such batches, compressed: they travel with the account of their task, not as rows do."""

_TEXT_CHARS_MAX = 16 * 1024
_TYPE, _MESSAGE, _TRACE = b"sabot.error_type", b"sabot.error_message", b"sabot.error_traceback"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFailure:
    """What went wrong."""

    type: str
    message: str
    traceback: str


class QuarantiningFunction:
    """Calls a checked function; a batch on which it raises, or gives what it must not, comes back marked."""

    def __init__(self, checked: CheckedFunction) -> None:
        self.checked = checked
        self.__qualname__ = checked.name  # what the slots call it

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        self.checked.load()  # a function that is not there fails on no batch, but the job
        try:
            return self.checked(batch)
        except Exception as error:
            return _marked(batch, error)


def failure_of(batch: pa.RecordBatch) -> BatchFailure | None:
    """What went wrong with the batch; None where it is an answer."""
    metadata = batch.schema.metadata
    if not metadata or _TYPE not in metadata:
        return None
    kind, message, trace = (metadata[key].decode("utf-8", "replace") for key in (_TYPE, _MESSAGE, _TRACE))
    return BatchFailure(type=kind, message=message, traceback=trace)


def quarantine_schema(given: pa.Schema) -> pa.Schema:
    """The columns that the function was given, and behind them what went wrong and where."""
    text = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            *plain_schema(given),
            *(pa.field(name, text) for name in ("error_type", "error_message", "error_traceback")),
            pa.field("error_stage", pa.int32()),
            pa.field("error_task", pa.int32()),
        ]
    )


def quarantined_rows(batch: pa.RecordBatch, failure: BatchFailure, *, stage: int, task: int) -> pa.RecordBatch:
    """The batch's rows as they are kept, by `quarantine_schema`."""
    rows = batch.num_rows

    def repeated(text: str) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([text], pa.string()))

    texts = [repeated(text) for text in (failure.type, failure.message, failure.traceback)]
    numbers = [pa.repeat(pa.scalar(number, pa.int32()), rows) for number in (stage, task)]
    return pa.RecordBatch.from_arrays([*batch.columns, *texts, *numbers], schema=quarantine_schema(batch.schema))


def _marked(batch: pa.RecordBatch, error: Exception) -> pa.RecordBatch:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception as broken:
        message = f"(its text cannot be made: {type(broken).__name__})"
    trace = error.__traceback__
    for _ in range(2):  # this module's frame and the check's
        trace = trace.tb_next if trace is not None and trace.tb_next is not None else trace
    text = "".join(traceback.format_exception(kind, error, trace))
    facts = {_TYPE: name, _MESSAGE: message[:_TEXT_CHARS_MAX], _TRACE: text[-_TEXT_CHARS_MAX:]}
    return batch.replace_schema_metadata({key: value.encode("utf-8", "replace") for key, value in facts.items()})
