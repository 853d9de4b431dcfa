"""A user's function of a whole partition: what it is given, and what may be made of its answer.

It travels as one batch, there and back, and each column of that is one array. Workers load this module, so it imports
little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from sabot.dataflow.columns import plain_schema
from sabot.dataflow.learned_schema import SchemaProbe, no_rows
from sabot.errors import LimitReached, UsageError
from sabot.wire.packed_function import PackedFunction, pack_function

_ARRAYS = "a string, binary or list column of a partition holds 2 GiB, or 2^31 values, at most"


class PartitionFunction:
    """Called with a partition as one batch: gives what the user's function returns for it as a table, as one batch."""

    def __init__(self, function: Callable[..., Any] | PackedFunction, schema: pa.Schema, name: str) -> None:
        self.function = function
        self.schema = plain_schema(schema)
        self.name = name
        self.__qualname__ = name  # what the slots call it

    def __reduce__(self) -> tuple[Any, ...]:
        return PartitionFunction, (pack_function(self.function, self.name), self.schema, self.name)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        if isinstance(self.function, PackedFunction):
            self.function = self.function.load()
        answer = self.function(pa.Table.from_batches([batch]))
        if answer is None:
            return None
        table = as_table(answer, self.name)
        if table.schema.names != self.schema.names or not all(
            _holds_the_same(given.type, wanted.type) for given, wanted in zip(table.schema, self.schema, strict=True)
        ):
            raise UsageError(
                f"map_partitions: {self.name} returned columns ({_columns(table.schema)}), "
                f"but was to return ({_columns(self.schema)}); return those, or pass schema= as it returns"
            )
        return one_batch(table.cast(self.schema), f"what {self.name} returned")


class PartitionProbe(SchemaProbe):
    """As SchemaProbe, for a function of a table."""

    what = "map_partitions"

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        answer = self.function(pa.Table.from_batches([batch]))
        return no_rows(without_views(plain_schema(as_table(answer, self.name).schema)))


def as_table(answer: object, name: str) -> pa.Table:
    """The answer of a function as a table: one, a batch, or anything with `__arrow_c_stream__`."""
    if isinstance(answer, pa.Table):
        return answer
    if isinstance(answer, pa.RecordBatch):
        return pa.Table.from_batches([answer])
    if hasattr(answer, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(answer).read_all()
    kind = type(answer)
    told = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    advice = "collect() it" if kind.__name__ == "LazyFrame" else "return a pyarrow.Table, or pass schema="
    raise UsageError(
        f"map_partitions: {name} returned a {told}; it must return a pyarrow.Table, a RecordBatch, what has "
        f"__arrow_c_stream__ (a frame of Polars or pandas, a relation of DuckDB) or None; {advice}"
    )


def one_batch(table: pa.Table, what: str) -> pa.RecordBatch:
    """The table's rows in one batch, copied together where they lie in several; LimitReached where they cannot."""
    try:
        batches = table.combine_chunks().to_batches()
    except (pa.ArrowInvalid, pa.ArrowCapacityError) as error:
        raise LimitReached(f"{what} is too large: {_ARRAYS} ({error}); use more partitions, or large types") from error
    if len(batches) > 1:
        raise LimitReached(f"{what} is too large: {_ARRAYS}; use more partitions (repartition), or large types")
    return batches[0] if batches else no_rows(table.schema)


def without_views(schema: pa.Schema) -> pa.Schema:
    """The schema with large strings and lists for views of them, which Polars gives and few functions of Arrow take."""
    fields = [pa.field(field.name, _large(field.type) if "view" in str(field.type) else field.type) for field in schema]
    return pa.schema(fields)


def _holds_the_same(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether they are one type, or layouts of one, of which libraries choose what they like."""
    return bool(given == wanted or _large(given) == _large(wanted))


def _large(kind: pa.DataType) -> pa.DataType:
    """Of all layouts of a type the one that holds any number of bytes."""
    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_list(kind) or types.is_large_list(kind) or types.is_list_view(kind) or types.is_large_list_view(kind):
        return pa.large_list(_large(kind.value_type))
    if types.is_struct(kind):
        return pa.struct([pa.field(field.name, _large(field.type)) for field in kind])
    return kind


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
