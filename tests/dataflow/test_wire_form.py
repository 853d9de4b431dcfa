"""Rows to the wire and back."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.dataflow.columns import plain_schema
from sabot.dataflow.wire_form import check_wire, from_wire, to_wire, wire_schema
from sabot.errors import UsageError
from tests.dataflow.tables import PAYLOADS, tables

WORDS = pa.dictionary(pa.int8(), pa.string())


def there_and_back(table: pa.Table) -> pa.Table:
    batches = [to_wire(batch) for batch in table.to_batches()]
    return from_wire(pa.Table.from_batches(batches, schema=wire_schema(table.schema)), table.schema)


@given(tables())
def test_any_table_comes_back_as_it_was(table: pa.Table) -> None:
    back = there_and_back(table)
    assert back.schema.equals(plain_schema(table.schema))
    assert back.to_pydict().keys() == table.to_pydict().keys()
    assert repr(back.to_pylist()) == repr(table.to_pylist())


@pytest.mark.parametrize(
    ("kind", "values", "decoded"),
    [
        (WORDS, ["a", None, "b", "a"], pa.string()),
        (pa.list_(WORDS), [["a"], None, ["b", None]], pa.list_(pa.string())),
        (pa.large_list(WORDS), [["a"], None], pa.large_list(pa.string())),
        (pa.struct([("d", WORDS)]), [{"d": "a"}, None], pa.struct([("d", pa.string())])),
    ],
    ids=str,
)
def test_dictionaries_are_decoded_for_the_wire(kind: pa.DataType, values: list[Any], decoded: pa.DataType) -> None:
    plain = pa.array(values, decoded)
    table = pa.table({"c": plain.cast(kind)})
    assert wire_schema(table.schema).field("c").type == decoded
    (batch,) = [to_wire(batch) for batch in table.to_batches()]
    assert batch.column("c").to_pylist() == values
    back = there_and_back(table)
    assert back["c"].type == kind
    assert back["c"].to_pylist() == values


def test_a_table_comes_back_with_one_dictionary_per_column() -> None:
    chunks = [pa.array(values).dictionary_encode().cast(WORDS) for values in (["a", "b"], ["c", "a"], ["d"])]
    back = there_and_back(pa.table({"c": pa.chunked_array(chunks)}))
    assert [chunk.dictionary.to_pylist() for chunk in back["c"].chunks] == [["a", "b", "c", "d"]] * 3


def test_an_ordered_dictionary_of_numbers_comes_back_as_one() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, None, 0], pa.int16()), pa.array([3]), ordered=True)
    back = there_and_back(pa.table({"c": column}))
    assert back["c"].type == column.type
    assert back["c"].to_pylist() == [3, None, 3]


def test_columns_without_dictionaries_are_not_copied() -> None:
    batch = pa.record_batch({"x": [1, 2, 3]})
    assert to_wire(batch).column("x").buffers()[1].address == batch.column("x").buffers()[1].address


def test_metadata_and_nullability_do_not_cross_the_wire() -> None:
    schema = pa.schema([pa.field("x", pa.int64(), nullable=False, metadata={"a": "b"})], metadata={"c": "d"})
    assert wire_schema(schema).equals(pa.schema([("x", pa.int64())]), check_metadata=True)
    batch = to_wire(pa.RecordBatch.from_arrays([pa.array([1])], schema=schema))
    assert batch.schema.equals(wire_schema(schema), check_metadata=True)


def test_more_values_than_a_dictionary_can_number_are_refused_by_name() -> None:
    table = pa.table({"c": [str(i) for i in range(200)]})
    with pytest.raises(UsageError, match=r"column 'c' has 200 distinct values, more than .*int8.* can number"):
        from_wire(table, pa.schema([("c", WORDS)]))


@given(st.sampled_from(list(PAYLOADS)))
def test_types_that_cross_the_wire_pass_the_check(kind: pa.DataType) -> None:
    check_wire(pa.schema([("c", kind)]), "test")
