"""The form in which rows cross the wire and lie in stores: dictionaries decoded, every column nullable, no metadata.

A dictionary is a matter of one process's memory; readers encode it anew, to the declared type.
"""

from __future__ import annotations

import pyarrow as pa

from sabot.dataflow.columns import plain_schema
from sabot.errors import UsageError


def wire_schema(schema: pa.Schema) -> pa.Schema:
    """The schema on the wire of rows of `schema`."""
    return pa.schema([pa.field(field.name, _decoded(field.type)) for field in schema])


def to_wire(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch as `wire_schema` of its schema says; zero-copy but for dictionaries."""
    schema = wire_schema(batch.schema)
    columns = [
        _decode(column, field.type) if column.type != field.type else column
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def from_wire(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows of `table`, which has `wire_schema(schema)`, with the columns of `schema` in its plain form.

    Each dictionary column gets one dictionary for the whole table.
    """
    plain = plain_schema(schema)
    columns = [
        _encode(column, field) if column.type != field.type else column
        for column, field in zip(table.columns, plain, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=plain)


def check_wire(schema: pa.Schema, what: str) -> None:
    """UsageError where a column cannot cross the wire and become again what it was."""
    for field in schema:
        one = pa.schema([field])
        try:
            for batch in from_wire(wire_schema(one).empty_table(), one).to_batches():
                to_wire(batch)
        except (pa.ArrowException, NotImplementedError) as error:
            raise UsageError(
                f"{what}: column {field.name!r} of type {field.type} cannot be sent between agents; cast it before",
                column=field.name,
            ) from error


def _decoded(kind: pa.DataType) -> pa.DataType:  # noqa: PLR0911 - one per kind of type
    types = pa.types
    if types.is_dictionary(kind):
        return _decoded(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([field.with_type(_decoded(field.type)) for field in kind.fields])
    if types.is_map(kind):
        return pa.map_(
            kind.key_field.with_type(_decoded(kind.key_type)),
            kind.item_field.with_type(_decoded(kind.item_type)),
            keys_sorted=kind.keys_sorted,
        )
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_decoded(kind.value_type)))
    if types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_decoded(kind.value_type)))
    if types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_decoded(kind.value_type)), kind.list_size)
    return kind


def _decode(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    return column if column.type == kind else column.cast(kind)


def _encode(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    kind = field.type
    if not pa.types.is_dictionary(kind):
        return column.cast(kind)
    encoded = column.dictionary_encode()
    if encoded.num_chunks == 0:
        return pa.chunked_array([], type=kind)
    # All chunks share the dictionary that unification gave the last one, which is the longest.
    dictionary = encoded.chunk(encoded.num_chunks - 1).dictionary
    try:
        chunks = [
            pa.DictionaryArray.from_arrays(chunk.indices.cast(kind.index_type), dictionary, ordered=kind.ordered)
            for chunk in encoded.chunks
        ]
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"column {field.name!r} has {len(dictionary):,} distinct values, more than {kind} can number; "
            f"cast it to {kind.value_type} before",
            column=field.name,
        ) from error
    return pa.chunked_array(chunks, type=kind)
