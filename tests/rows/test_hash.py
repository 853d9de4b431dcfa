"""The value hash keeps its contract: equal values hash alike, and the vectors of docs/protocol.md hold."""

from __future__ import annotations

import math
import struct
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.errors import UsageError
from sabot.native import _native
from tests.rows import strategies as rows
from tests.rows import vectors

NULL_HASH = 0xD1B54A32D192ED03
BITS = 2**64


def split(x: int) -> int:
    """`split` of docs/protocol.md, once more."""
    x = (x + 0x9E3779B97F4A7C15) % BITS
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % BITS
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % BITS
    return x ^ (x >> 31)


def mix(a: int, b: int) -> int:
    """`mix` of docs/protocol.md, once more."""
    return split(((a << 29) % BITS | a >> 35) + b)


def bind(k: int, v: int) -> int:
    """`bind` of docs/protocol.md, once more."""
    return ((k >> 32) + (k | 1) * v) % BITS


def hashes(array: pa.Array) -> list[int]:
    return list(_native.hash_column(array).to_pylist())


@pytest.mark.parametrize(("kind", "value", "expected"), vectors.table("| type | value | hash |"))
def test_hash_of_a_vector_is_the_documented_one(kind: str, value: str, expected: str) -> None:
    array = vectors.array_of(kind, [vectors.json_of(value)])
    assert f"{hashes(array)[0]:016x}" == expected


@pytest.mark.parametrize(
    ("number", "text", "expected", "of_7", "of_1000"), vectors.table("| int64 | string | k | of 7 | of 1000 |")
)
def test_key_hash_and_partition_of_a_vector_are_the_documented_ones(
    number: str, text: str, expected: str, of_7: str, of_1000: str
) -> None:
    columns = [pa.array([vectors.json_of(number)], pa.int64()), pa.array([vectors.json_of(text)], pa.string())]
    key_hashes = _native.hash_keys(pa.record_batch(columns, ["n", "s"]), ["n", "s"])
    assert f"{key_hashes[0].as_py():016x}" == expected
    assert _native.partition_of(key_hashes, 7).to_pylist() == [int(of_7)]
    assert _native.partition_of(key_hashes, 1000).to_pylist() == [int(of_1000)]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_hash_of_integers_follows_the_formula(values: list[int | None]) -> None:
    expected = [NULL_HASH if value is None else split(value % BITS) for value in values]
    assert hashes(pa.array(values, pa.int64())) == expected


@given(st.lists(st.floats()))
def test_hash_of_floats_follows_the_formula(values: list[float]) -> None:
    def bits(value: float) -> int:
        if math.isnan(value):
            return 0x7FF8000000000000
        return int(struct.unpack("<Q", struct.pack("<d", value + 0.0))[0])

    assert hashes(pa.array(values, pa.float64())) == [split(bits(value)) for value in values]


@given(st.lists(st.none() | st.lists(st.none() | st.integers(0, 9), max_size=3)))
def test_hash_of_lists_follows_the_formula(values: list[list[int | None] | None]) -> None:
    def fold(items: list[int | None] | None) -> int:
        if items is None:
            return NULL_HASH
        found = split(len(items))
        for item in items:
            found = mix(found, NULL_HASH if item is None else split(item))
        return found

    for kind in (
        pa.list_(pa.int8()),
        pa.large_list(pa.int64()),
        pa.list_view(pa.int16()),
        pa.large_list_view(pa.int8()),
    ):
        assert hashes(pa.array(values, kind)) == [fold(items) for items in values]


@pytest.mark.parametrize(("k", "v", "expected"), vectors.table("| k | v | bind(k, v) |"))
def test_what_a_vector_adds_to_a_content_sum_is_the_documented(k: str, v: str, expected: str) -> None:
    assert f"{_native.bind(int(k, 16), int(v, 16)):016x}" == f"{bind(int(k, 16), int(v, 16)):016x}" == expected


@given(rows.batches([pa.int32(), pa.string()]), st.integers(1, 1000))
def test_partition_and_content_sum_follow_their_formulas(batch: pa.RecordBatch, num_partitions: int) -> None:
    keys = [mix(a, b) for a, b in zip(hashes(batch["c0"]), hashes(batch["c1"]), strict=True)]
    found = _native.hash_keys(batch, ["c0", "c1"])
    assert found.to_pylist() == keys
    assert _native.partition_of(found, num_partitions).to_pylist() == [split(k) * num_partitions >> 64 for k in keys]
    total = sum(bind(k, v) for k, v in zip(keys, hashes(batch["id"]), strict=True)) % BITS
    assert _native.content_sum(batch, ["c0", "c1"], 0) == total
    assert _native.content_sum(batch, [], 0) == sum(hashes(batch["id"])) % BITS


@given(st.data(), st.sampled_from(rows.FLAT_TYPES))
def test_equal_values_hash_alike_in_every_layout(data: st.DataObject, kind: pa.DataType) -> None:
    array = data.draw(rows.arrays(kind))
    expected = hashes(array)
    for layout in rows.layouts_of(array):
        assert hashes(layout) == expected, layout.type


@given(rows.arrays())
def test_hash_of_a_row_does_not_depend_on_its_neighbours(array: pa.Array) -> None:
    expected = hashes(array)
    assert [hashes(array.slice(i, 1))[0] for i in range(len(array))] == expected
    assert hashes(rows.ipc_copy(pa.record_batch([array], ["x"]))["x"]) == expected
    assert hashes(pa.array(array.to_pylist(), array.type)) == expected


@given(st.lists(st.none() | st.text(max_size=3), min_size=1), st.data())
def test_dictionary_hashes_by_value_whatever_its_order_and_nulls(values: list[str | None], data: st.DataObject) -> None:
    entries = data.draw(st.permutations([*sorted({value for value in values if value is not None}), None]))
    indices = [entries.index(value) if data.draw(st.booleans()) or value is not None else None for value in values]
    encoded = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int16()), pa.array(entries, pa.string()))
    assert hashes(encoded) == hashes(pa.array(values, pa.string()))


def test_extension_hashes_as_its_storage() -> None:
    storage = pa.array([b"0" * 16, None], pa.binary(16))
    assert hashes(pa.ExtensionArray.from_storage(pa.uuid(), storage)) == hashes(storage)


def test_struct_field_under_a_null_does_not_count() -> None:
    fields = [pa.array([1, 2]), pa.array(["a", "b"])]
    masked = pa.StructArray.from_arrays(fields, ["n", "s"], mask=pa.array([False, True]))
    assert hashes(masked)[1] == NULL_HASH


@pytest.mark.parametrize(
    "column",
    [pa.array([[1]]), pa.array([{"a": 1}]), pa.array([1.5], pa.float16()), pa.array([[1]], pa.list_view(pa.int8()))],
    ids=lambda column: str(column.type),
)
def test_key_of_a_type_that_cannot_be_key_names_column_and_type(column: pa.Array) -> None:
    batch = pa.record_batch([column], ["price"])
    with pytest.raises(
        UsageError, match=r"Column 'price' has type .*, whose values cannot be keys; use another"
    ) as caught:
        _native.hash_keys(batch, ["price"])
    assert str(column.type) in str(caught.value)


def union() -> pa.Array:
    return pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])])


def run_end_encoded() -> pa.Array:
    return pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["a"]))


@pytest.mark.parametrize("column", [union(), run_end_encoded()], ids=["union", "run_end_encoded"])
def test_value_without_a_hash_is_refused_by_its_type(column: pa.Array) -> None:
    with pytest.raises(UsageError, match="have no hash; cast the column"):
        _native.hash_column(column)


def test_missing_key_column_names_the_nearest() -> None:
    batch = pa.record_batch({"carrier": ["AA"], "tailnum": ["N1"]})
    with pytest.raises(UsageError, match="There is no column 'carier'; did you mean 'carrier'"):
        _native.hash_keys(batch, ["carier"])


@pytest.mark.parametrize("call", [lambda: _native.hash_column([1]), lambda: _native.hash_keys(None, [])])
def test_argument_that_is_no_arrow_object_is_a_usage_error(call: Any) -> None:
    with pytest.raises(UsageError, match="Expected a pyarrow"):
        call()


def test_partitions_of_consecutive_keys_are_even() -> None:
    found = _native.partition_of(_native.hash_column(pa.array(range(64_000))), 64).value_counts()
    counts = [entry["counts"].as_py() for entry in found]
    assert len(counts) == 64
    assert min(counts) > 850
    assert max(counts) < 1150
