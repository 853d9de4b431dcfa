"""Learning what columns a user's function returns: it is called once with a batch without rows, in a worker.

Workers load this module, so it imports little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa

from sabot.dataflow.columns import plain_schema
from sabot.errors import UsageError

_ADVICE = "pass schema=, the pyarrow.Schema of what it returns"


class SchemaProbe:
    """The function of a step on its way to a worker; called with no rows it gives none, of the columns returned."""

    what = "map_batches"

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function = function
        self.name = name

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        answer = self.function(batch)
        if not isinstance(answer, pa.RecordBatch):
            raise UsageError(
                f"{self.what}: {self.name} returned a {type(answer).__qualname__} for a batch without rows; "
                f"return a pyarrow.RecordBatch, or {_ADVICE}"
            )
        return no_rows(plain_schema(answer.schema))

    def failed(self, error: BaseException) -> UsageError:
        """What the user is told when the call raised `error`, which becomes its cause."""
        if isinstance(error, UsageError):  # it says already what to do
            return error
        return UsageError(
            f"{self.what}: {self.name} raised {type(error).__name__} when called with a batch without rows, "
            f"to learn what columns it returns; {_ADVICE}"
        )


class LearnSchema(Protocol):
    """How a node asks its session: calls the probe with no rows of `schema` where user code may run."""

    def __call__(self, probe: SchemaProbe, schema: pa.Schema) -> pa.Schema: ...


def no_rows(schema: pa.Schema) -> pa.RecordBatch:
    """A batch without rows."""
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
