"""A user's function of a RecordBatch whose answer is checked: what tasks call, in the agent or in a worker.

Every worker loads this module, so it imports little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from sabot.dataflow.columns import plain_schema
from sabot.errors import UsageError
from sabot.wire.packed_function import PackedFunction, pack_function


class CheckedFunction:
    """A user's function of a RecordBatch, whose answer is checked against the declared schema."""

    def __init__(
        self, function: Callable[[pa.RecordBatch], pa.RecordBatch | None] | PackedFunction, schema: pa.Schema, name: str
    ) -> None:
        self.function = function
        self.schema = plain_schema(schema)
        self.name = name
        self.__qualname__ = name  # what the slots call it

    def __reduce__(self) -> tuple[Any, ...]:
        return CheckedFunction, (pack_function(self.function, self.name), self.schema, self.name)

    def load(self) -> Callable[[pa.RecordBatch], pa.RecordBatch | None]:
        """The function, opened; UsageError where what it needs is not there."""
        if isinstance(self.function, PackedFunction):
            self.function = self.function.load()
        return self.function

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        answer = self.load()(batch)
        if answer is None:
            return None
        if not isinstance(answer, pa.RecordBatch):
            raise UsageError(
                f"map_batches: {self.name} returned {_described(answer)}; it must return a pyarrow.RecordBatch or None"
            )
        if not plain_schema(answer.schema).equals(self.schema):
            raise UsageError(
                f"map_batches: {self.name} returned columns ({_columns(answer.schema)}), "
                f"but was to return ({_columns(self.schema)}); return those, or pass schema= as it returns"
            )
        return pa.RecordBatch.from_arrays(answer.columns, schema=self.schema)


def _described(answer: object) -> str:
    kind = type(answer)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"a {name}" + (" (use table.combine_chunks().to_batches()[0])" if isinstance(answer, pa.Table) else "")


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
