"""Tables made by hypothesis: small, with the values that break things."""

from __future__ import annotations

import datetime
import decimal
import math
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

_MOMENTS = st.datetimes(datetime.datetime(1999, 1, 1), datetime.datetime(2001, 1, 1))

KEY_VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): st.sampled_from([0, 1, 2, -1, 2**62, -(2**63)]),
    pa.int8(): st.integers(-2, 2),
    pa.uint16(): st.sampled_from([0, 1, 65535]),
    pa.float64(): st.sampled_from([1.0, 1.5, math.nan, math.inf, -math.inf]),
    pa.bool_(): st.booleans(),
    pa.string(): st.sampled_from(["", "a", "b", "ä", "long enough not to lie in a view"]),
    pa.large_binary(): st.sampled_from([b"", b"a", b"\x00"]),
    pa.date32(): st.sampled_from([datetime.date(1970, 1, 1), datetime.date(2000, 2, 29)]),
    pa.timestamp("us"): st.sampled_from([datetime.datetime(2000, 1, 1), datetime.datetime(2000, 1, 1, 0, 0, 1)]),
    pa.decimal128(7, 2): st.sampled_from([decimal.Decimal("1.50"), decimal.Decimal("-0.01")]),
    pa.dictionary(pa.int8(), pa.string()): st.sampled_from(["a", "b", "c"]),
}

NUMBERS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): st.integers(-(2**40), 2**40),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.uint8(): st.integers(0, 255),
    pa.float64(): st.integers(-1000, 1000).map(lambda n: n / 8) | st.just(math.nan),
    pa.float32(): st.integers(-1000, 1000).map(lambda n: n / 8),
    pa.decimal128(9, 2): st.integers(-(10**6), 10**6).map(lambda n: decimal.Decimal(n) / 100),
}

PAYLOADS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    **NUMBERS,
    pa.string(): st.text("abä\0", max_size=3),
    pa.timestamp("ns", tz="UTC"): _MOMENTS.map(lambda moment: moment.replace(tzinfo=datetime.UTC)),
    pa.list_(pa.int32()): st.lists(st.none() | st.integers(0, 3), max_size=3),
    pa.struct([("a", pa.int64()), ("b", pa.string())]): st.fixed_dictionaries(
        {"a": st.none() | st.integers(0, 3), "b": st.text("ab", max_size=2)}
    ),
    pa.dictionary(pa.int32(), pa.string()): st.sampled_from(["x", "y", "z"]),
    pa.map_(pa.string(), pa.int8()): st.dictionaries(
        st.sampled_from("ab"), st.none() | st.integers(0, 3), max_size=2
    ).map(lambda entries: sorted(entries.items())),
    pa.list_(pa.int16(), 2): st.lists(st.integers(0, 3), min_size=2, max_size=2),
    pa.large_list(pa.dictionary(pa.int8(), pa.string())): st.lists(st.sampled_from("ab"), max_size=2),
    pa.binary(3): st.sampled_from([b"abc", b"\x00\x00\x00"]),
    pa.decimal256(40, 3): st.integers(-(10**30), 10**30).map(lambda n: decimal.Decimal(n).scaleb(-3)),
    pa.time64("us"): st.times(),
    pa.duration("ms"): st.integers(-(10**9), 10**9).map(lambda n: datetime.timedelta(milliseconds=n)),
    pa.null(): st.none(),
}

# pyarrow itself can neither take nor sort these.
PAYLOADS_OF_JOINS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    **PAYLOADS,
    pa.string_view(): st.sampled_from(["", "a", "long enough not to lie in a view"]),
}

EVERY_KEY: dict[pa.DataType, list[Any]] = {
    pa.int64(): [0, 1, -(2**63)],
    pa.int8(): [0, 1, -128],
    pa.uint16(): [0, 1, 65535],
    pa.float64(): [1.5, math.nan, math.inf],
    pa.bool_(): [True, False],
    pa.string(): ["", "b", "a"],
    pa.large_binary(): [b"", b"b", b"a"],
    pa.date32(): [datetime.date(2000, 2, 29), datetime.date(1970, 1, 1)],
    pa.timestamp("us"): [datetime.datetime(2000, 1, 2), datetime.datetime(2000, 1, 1)],
    pa.decimal128(7, 2): [decimal.Decimal("1.50"), decimal.Decimal("-0.01")],
    # In a dictionary the order of the values is not the order of their numbers.
    pa.dictionary(pa.int8(), pa.string()): ["z", "a", "m"],
}


def every_value(kind: pa.DataType) -> pa.Table:
    """Columns k, with some values of the type and null, each several times, and i, the row's number."""
    values = [*EVERY_KEY[kind], None] * 3
    return pa.table({"k": pa.array(values, kind), "i": pa.array(range(len(values)), pa.int64())})


@st.composite
def columns(draw: st.DrawFn, kinds: dict[pa.DataType, st.SearchStrategy[Any]], rows: int) -> pa.Array:
    """An array of one of the types, with nulls."""
    kind = draw(st.sampled_from(list(kinds)))
    return pa.array(draw(st.lists(st.none() | kinds[kind], min_size=rows, max_size=rows)), kind)


@st.composite
def join_sides(draw: st.DrawFn, *, rows_max: int = 8) -> tuple[pa.Table, pa.Table]:
    """Two tables with keys k of one type, and perhaps h of another; p (anything) on both sides, i and j row numbers."""
    counts = draw(st.tuples(st.integers(0, rows_max), st.integers(0, rows_max)))
    kinds = draw(st.tuples(st.sampled_from(list(KEY_VALUES)), st.sampled_from(list(KEY_VALUES))))
    left, right = (
        {
            **{name: draw(columns({kind: KEY_VALUES[kind]}, count)) for name, kind in zip("kh", kinds, strict=True)},
            "p": draw(columns(PAYLOADS_OF_JOINS, count)),
            row_number: pa.array(range(count), pa.int64()),
        }
        for count, row_number in zip(counts, "ij", strict=True)
    )
    return pa.table(left), pa.table(dict(reversed(right.items())))


@st.composite
def tables(draw: st.DrawFn, *, rows_max: int = 12) -> pa.Table:
    """Columns: k and h (may be keys), n (a number), p (anything), i (the row's number)."""
    rows = draw(st.integers(0, rows_max))
    return pa.table(
        {
            "k": draw(columns(KEY_VALUES, rows)),
            "h": draw(columns(KEY_VALUES, rows)),
            "n": draw(columns(NUMBERS, rows)),
            "p": draw(columns(PAYLOADS, rows)),
            "i": pa.array(range(rows), pa.int64()),
        }
    )


@st.composite
def shaped_tables(draw: st.DrawFn, *, times_max: int = 40) -> pa.Table:
    """Columns as of `tables`, of no row, one, some, or some many times over, which tasks take in several morsels."""
    rows, times = draw(st.sampled_from([(0, 1), (1, 1), (12, 1), (12, times_max)]))
    table = draw(tables(rows_max=rows))
    repeated = pa.concat_tables([table] * times).combine_chunks()
    return repeated.set_column(4, "i", pa.array(range(len(repeated)), pa.int64()))


@st.composite
def chunked(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    """The same rows in up to three chunks, which are slices of others, each with dictionaries of its own."""
    points = sorted(draw(st.lists(st.integers(0, len(table)), max_size=2)))
    pieces = [
        _made_anew(table.slice(max(0, start - 1), stop - max(0, start - 1))).slice(min(1, start))
        for start, stop in zip([0, *points], [*points, len(table)], strict=True)
    ]
    return pa.concat_tables(pieces)


def _made_anew(table: pa.Table) -> pa.Table:
    columns = [pa.array(column.to_pylist(), column.type) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


def sessions_arguments() -> st.SearchStrategy[dict[str, int]]:
    """How finely an InterpreterSession cuts."""
    return st.fixed_dictionaries(
        {"partitions": st.integers(1, 4), "pieces": st.integers(1, 4), "morsel_rows": st.sampled_from([1, 3, 100])}
    )
