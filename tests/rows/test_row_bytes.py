"""The bytes that receipts count are the values' own: they add up over any cut, and no layout changes them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.native._native import row_bytes
from tests.rows.strategies import arrays, batches, cut, ipc_copy


def bytes_of_value(kind: pa.DataType, value: Any) -> int:  # noqa: PLR0911 - one per kind of type
    """What docs/protocol.md says of one value."""
    types = pa.types
    if types.is_null(kind):
        return 0
    if types.is_boolean(kind):
        return 1
    if types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return sum(bytes_of_value(field.type, None if value is None else value[field.name]) for field in fields)
    if types.is_fixed_size_list(kind):
        return sum(bytes_of_value(kind.value_type, item) for item in value or [None] * kind.list_size)
    if types.is_map(kind):
        keys, items = kind.key_type, kind.item_type
        return 4 + sum(bytes_of_value(keys, key) + bytes_of_value(items, item) for key, item in value or ())
    if types.is_list(kind) or types.is_large_list(kind):
        width = 4 if types.is_list(kind) else 8
        return width + sum(bytes_of_value(kind.value_type, item) for item in value or ())
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        width = 8 if types.is_list_view(kind) else 16
        return width + sum(bytes_of_value(kind.value_type, item) for item in value or ())
    if types.is_string_view(kind) or types.is_binary_view(kind):
        length = len(encoded(value))
        return 16 + (length if length > 12 else 0)
    if types.is_string(kind) or (types.is_binary(kind) and not types.is_fixed_size_binary(kind)):
        return 4 + len(encoded(value))
    if types.is_large_string(kind) or types.is_large_binary(kind):
        return 8 + len(encoded(value))
    return int(kind.bit_width) // 8


def encoded(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


@given(column=arrays())
def test_bytes_of_a_column_are_those_of_its_values(column: pa.Array) -> None:
    expected = sum(bytes_of_value(column.type, value) for value in column.to_pylist())
    assert row_bytes(pa.record_batch([column], ["x"])) == expected


@given(batch=batches(), points=st.lists(st.integers(0, 40), max_size=4))
def test_bytes_add_up_over_any_cut_and_survive_the_wire(batch: pa.RecordBatch, points: list[int]) -> None:
    whole = row_bytes(batch)
    assert sum(map(row_bytes, cut(batch, points))) == whole
    assert row_bytes(ipc_copy(batch)) == whole
    assert sum(row_bytes(ipc_copy(piece)) for piece in cut(batch, points)) == whole


@pytest.mark.parametrize("kind", [pa.string(), pa.large_binary(), pa.list_(pa.int32())])
def test_values_of_a_slice_are_counted_and_not_their_parents(kind: pa.DataType) -> None:
    values: list[Any] = [[1] * 10, [2], []] if pa.types.is_list(kind) else ["x" * 10, "y", ""]
    column = pa.array(
        [value if pa.types.is_list(kind) or pa.types.is_string(kind) else value.encode() for value in values], kind
    )
    sizes = [row_bytes(pa.record_batch([column.slice(i, 1)], ["x"])) for i in range(3)]
    assert sizes == [bytes_of_value(kind, value) for value in column.to_pylist()]
