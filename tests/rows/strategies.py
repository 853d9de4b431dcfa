"""Random columns for properties: values of any type that rows can have, and other layouts of the same values."""

from __future__ import annotations

import datetime
import decimal
import io
import math
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

SMALL_INTS = st.integers(-100, 100)
TEXTS = st.text(max_size=30)
BYTES = st.binary(max_size=30)

VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): SMALL_INTS,
    pa.uint16(): st.integers(0, 2**16 - 1),
    pa.int32(): SMALL_INTS,
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    pa.time64("us"): st.times(),
    pa.timestamp("us"): st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)),
    pa.duration("us"): SMALL_INTS,
    pa.decimal128(20, 2): st.decimals(-(10**17), 10**17, places=2),
    pa.decimal256(60, 0): st.integers(-(10**59), 10**59).map(decimal.Decimal),
    pa.string(): TEXTS,
    pa.large_string(): TEXTS,
    pa.string_view(): TEXTS,
    pa.binary(): BYTES,
    pa.large_binary(): BYTES,
    pa.binary_view(): BYTES,
    pa.binary(5): st.binary(min_size=5, max_size=5),
    pa.binary(16): st.binary(min_size=16, max_size=16),
    pa.month_day_nano_interval(): st.tuples(SMALL_INTS, SMALL_INTS, SMALL_INTS).map(pa.MonthDayNano),
    pa.null(): st.none(),
}
FLAT_TYPES = sorted(VALUES, key=str)


def _nested(types: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    return st.one_of(
        types.map(pa.list_),
        types.map(pa.large_list),
        types.map(pa.list_view),
        types.map(pa.large_list_view),
        types.map(lambda kind: pa.list_(kind, 2)),
        types.map(lambda kind: pa.map_(pa.string(), kind)),
        st.lists(types, min_size=1, max_size=3).map(
            lambda kinds: pa.struct([(f"f{i}", k) for i, k in enumerate(kinds)])
        ),
    )


TYPES = st.recursive(st.sampled_from(FLAT_TYPES), _nested, max_leaves=3)


def values_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of `kind` and None, as `pa.array` takes them."""
    some: st.SearchStrategy[Any]
    if pa.types.is_fixed_size_list(kind):
        some = st.lists(values_of(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    elif pa.types.is_map(kind):
        some = st.lists(st.tuples(TEXTS, values_of(kind.item_type)), max_size=3)
    elif pa.types.is_struct(kind):
        some = st.fixed_dictionaries({field.name: values_of(field.type) for field in kind})
    elif pa.types.is_nested(kind):
        some = st.lists(values_of(kind.value_type), max_size=4)
    else:
        some = VALUES[kind]
    return st.one_of(st.none(), some, some, some)


@st.composite
def arrays(draw: st.DrawFn, kind: pa.DataType | None = None, *, rows: int | None = None) -> pa.Array:
    """An array of `kind` (any, if None) with `rows` rows (0 to 40, if None), often a slice of a longer one."""
    kind = draw(TYPES) if kind is None else kind
    count = draw(st.integers(0, 40)) if rows is None else rows
    before = draw(st.integers(0, 11))
    after = draw(st.integers(0, 3))
    size = before + count + after
    values = draw(st.lists(values_of(kind), min_size=size, max_size=size))
    return pa.array(values, kind).slice(before, count)


@st.composite
def batches(draw: st.DrawFn, kinds: list[pa.DataType] | None = None) -> pa.RecordBatch:
    """A batch of `id` (row numbers) and the columns `c0`, `c1`, ..., of `kinds` or of one to three random types."""
    chosen = draw(st.lists(TYPES, min_size=1, max_size=3)) if kinds is None else kinds
    rows = draw(st.integers(0, 40))
    columns = {"id": pa.array(range(rows), pa.int64())}
    for i, kind in enumerate(chosen):
        columns[f"c{i}"] = draw(arrays(kind, rows=rows))
    return pa.record_batch(columns)


def cut(batch: pa.RecordBatch, points: list[int]) -> list[pa.RecordBatch]:
    """`batch` as slices, cut at `points`; some may be empty."""
    ends = sorted(min(point, batch.num_rows) for point in points)
    starts = [0, *ends]
    return [batch.slice(start, end - start) for start, end in zip(starts, [*ends, batch.num_rows], strict=True)]


def layouts_of(array: pa.Array) -> list[pa.Array]:
    """Other layouts of the values of a flat `array`: encoded, wider, viewed, moved, with and without a bitmap."""
    kind = array.type
    moved = pa.concat_arrays([array[:1], array]).slice(min(1, len(array)))
    found = [array, moved, ipc_copy(pa.record_batch([array], ["x"]))["x"]]
    if kind not in (pa.null(), pa.month_day_nano_interval(), pa.string_view(), pa.binary_view()):
        found.append(array.dictionary_encode())
    if pa.types.is_string(kind):
        found += [array.cast(pa.large_string()), array.cast(pa.string_view()), array.cast(pa.binary())]
    if pa.types.is_integer(kind) and kind.bit_width < 64:
        found.append(array.cast(pa.int64()))
    if pa.types.is_float32(kind):
        found.append(array.cast(pa.float64()))
    if pa.types.is_decimal128(kind):
        found.append(array.cast(pa.decimal256(70, kind.scale)))
    return found


def ipc_copy(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch` after an IPC stream with default options, as Flight sends it."""
    return pa.ipc.open_stream(pa.py_buffer(ipc_bytes(batch))).read_next_batch()


def ipc_bytes(batch: pa.RecordBatch) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def comparable(value: Any) -> Any:
    """`value` so that NaN equals NaN, at any depth."""
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    if isinstance(value, list | tuple):
        return [comparable(item) for item in value]
    if isinstance(value, dict):
        return {name: comparable(item) for name, item in value.items()}
    return value
