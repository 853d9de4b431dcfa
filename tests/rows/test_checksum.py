"""The chunk checksum: the same on both ends of an IPC stream, and another one for any other content."""

from __future__ import annotations

import contextlib
import math
import struct

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sabot.errors import ShuffleIntegrityError, UsageError
from sabot.native import _native
from tests.rows import strategies as rows
from tests.rows import vectors

FLIP_ROWS = 8  # bitmaps without unused bits
FLIP_TYPES = [kind for kind in rows.FLAT_TYPES if kind != pa.null()] + [
    pa.list_(pa.int32()),
    pa.large_list(pa.string()),
    pa.list_(pa.int32(), 3),
    pa.struct({"a": pa.uint16(), "b": pa.string()}),
    pa.map_(pa.string(), pa.int8()),
]


def checksum(batch: pa.RecordBatch) -> int:
    return int(_native.checksum_batch(batch))


def read(stream: bytearray) -> pa.RecordBatch:
    return pa.ipc.open_stream(pa.py_buffer(stream)).read_next_batch()


@pytest.mark.parametrize(
    ("kind", "values", "whole", "second"), vectors.table("| type | values | checksum | of the slice |")
)
def test_checksum_of_a_vector_is_the_documented_one(kind: str, values: str, whole: str, second: str) -> None:
    batch = pa.record_batch({"x": vectors.array_of(kind, vectors.json_of(values))})
    assert f"{checksum(batch):016x}" == whole
    assert f"{checksum(batch.slice(1, 1)):016x}" == second


def stream_of_strings(array: pa.Array) -> bytes:
    """What docs/protocol.md says is hashed for a batch of this one string array, once more."""
    values = array.to_pylist()
    stream = struct.pack("<qqq", len(values), len(values), array.null_count)
    if array.null_count:
        bits = sum(1 << i for i, value in enumerate(values) if value is not None)
        stream += bits.to_bytes(math.ceil(len(values) / 8), "little")
    if values:
        ends = [0]
        for value in values:
            ends.append(ends[-1] + len((value or "").encode()))
        stream += struct.pack(f"<{len(ends)}i", *ends)
    return stream + "".join(value or "" for value in values).encode()


@given(st.lists(st.none() | rows.TEXTS, max_size=70), st.integers(0, 20))
def test_checksum_is_the_hash_of_the_documented_stream(values: list[str | None], start: int) -> None:
    array = pa.array(values, pa.string()).slice(min(start, len(values)))
    stream = pa.array([stream_of_strings(array)], pa.binary())
    assert checksum(pa.record_batch([array], ["x"])) == _native.hash_column(stream)[0].as_py()


@given(rows.batches(), st.integers(0, 40), st.integers(0, 40))
def test_checksum_survives_slicing_and_ipc(batch: pa.RecordBatch, start: int, length: int) -> None:
    part = batch.slice(min(start, batch.num_rows), length)
    copy = rows.ipc_copy(part)
    assert checksum(copy) == checksum(part)
    assert checksum(rows.ipc_copy(copy)) == checksum(part)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 9))
def test_checksum_of_bits_does_not_depend_on_where_they_lie(before: int, count: int, after: int) -> None:
    values = [None if i % 3 == 0 else i % 2 == 0 for i in range(count)]
    moved = pa.array([True] * before + values + [False] * after, pa.bool_()).slice(before, count)
    aligned = pa.array(values, pa.bool_())
    assert checksum(pa.record_batch([moved], ["x"])) == checksum(pa.record_batch([aligned], ["x"]))


def test_bitmap_without_nulls_does_not_count() -> None:
    plain = pa.array([1, 2, 3], pa.int64())
    bitmap = pa.Array.from_buffers(pa.int64(), 3, [pa.py_buffer(b"\xff"), plain.buffers()[1]])
    assert checksum(pa.record_batch([bitmap], ["x"])) == checksum(pa.record_batch([plain], ["x"]))


def test_dictionary_is_covered() -> None:
    indices = pa.array([0, 1, 0], pa.int8())
    one, other = (
        pa.record_batch([pa.DictionaryArray.from_arrays(indices, pa.array(entries))], ["x"])
        for entries in (["a", "b"], ["a", "c"])
    )
    assert checksum(one) != checksum(other)
    assert checksum(rows.ipc_copy(one.slice(1))) == checksum(one.slice(1))


def test_bytes_that_move_between_columns_change_the_checksum() -> None:
    one = pa.record_batch({"a": ["x", "yz"], "b": ["p", "q"]})
    other = pa.record_batch({"a": ["x", "y"], "b": ["zp", "q"]})
    assert checksum(one) != checksum(other)


@given(st.data(), st.sampled_from(FLIP_TYPES))
def test_flipped_bit_in_any_buffer_changes_the_checksum(data: st.DataObject, kind: pa.DataType) -> None:
    values = data.draw(st.lists(rows.values_of(kind), min_size=FLIP_ROWS, max_size=FLIP_ROWS))
    batch = pa.record_batch([pa.array(values, kind)], ["x"])
    stream = bytearray(rows.ipc_bytes(batch))
    copy = read(stream)
    body = pa.py_buffer(stream).address
    logical = [buffer.address - body + byte for buffer in logical_buffers(copy["x"]) for byte in range(buffer.size)]
    assume(logical)
    before = checksum(copy)
    position = data.draw(st.sampled_from(logical))
    stream[position] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(ShuffleIntegrityError):
        assert checksum(read(stream)) != before


def logical_buffers(array: pa.Array) -> list[pa.Buffer]:
    """The buffers of `array` and its children whose every bit has a meaning."""
    own = [buffer for buffer in array.buffers() if buffer is not None and buffer.size > 0]
    if not pa.types.is_nested(array.type):
        return own
    bitmaps_of_children = {child.buffers()[0].address for child in children(array) if child.buffers()[0] is not None}
    return [buffer for buffer in own if buffer.address not in bitmaps_of_children]


def children(array: pa.Array) -> list[pa.Array]:
    if pa.types.is_struct(array.type):
        return [array.field(i) for i in range(array.type.num_fields)]
    if pa.types.is_map(array.type):
        return [array.keys, array.items]
    return [array.values]


@given(st.data(), rows.TYPES)
def test_batch_damaged_anywhere_is_refused_or_read_within_its_buffers(data: st.DataObject, kind: pa.DataType) -> None:
    values = data.draw(st.lists(rows.values_of(kind), min_size=1, max_size=20))
    stream = bytearray(rows.ipc_bytes(pa.record_batch([pa.array(values, kind)], ["x"])))
    start = pa.py_buffer(stream).address
    found = [buffer for buffer in read(stream)["x"].buffers() if buffer is not None and buffer.size > 0]
    assume(found)
    first = min(buffer.address for buffer in found) - start
    last = max(buffer.address + buffer.size for buffer in found) - start - 1
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(first, last))] = data.draw(st.integers(0, 255))
    try:
        checksum(read(stream))
    except ShuffleIntegrityError as error:
        assert "reach out of their buffer" in str(error)


@pytest.mark.parametrize("offsets", [[0, 9], [5, 3], [-1, 2], [0, 2**31 - 1]])
def test_offsets_out_of_their_buffer_are_an_integrity_error(offsets: list[int]) -> None:
    memory = bytearray(struct.pack("<2i", 0, 3))
    array = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(memory), pa.py_buffer(b"abc")])
    batch = pa.record_batch([array], ["x"])
    memory[:] = struct.pack("<2i", *offsets)  # after pyarrow has looked
    with pytest.raises(ShuffleIntegrityError, match="of type string reach out of their buffer"):
        checksum(batch)


def test_column_without_a_checksum_is_refused_by_its_type() -> None:
    union = pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])])
    with pytest.raises(UsageError, match=r"sparse_union.*have no checksum"):
        checksum(pa.record_batch([union], ["x"]))
