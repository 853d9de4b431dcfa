"""Grouping by one whole number or moment, which our own code does in place of Acero."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.dataflow.grouping import group_by_one_key
from sabot.dataflow.stage import Aggregate
from tests.dataflow.comparing import assert_same_rows

KEYS = [
    *(pa.int32(), pa.int64(), pa.uint32(), pa.uint64(), pa.date32(), pa.date64()),
    *(pa.time32("ms"), pa.time64("us"), pa.timestamp("us", tz="UTC"), pa.duration("s")),
]
VALUES = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.float32(), pa.float64()),
]
TOTALS = (("v", "sum"), ("v", "count"), ((), "count_all"), ("k", "count"))


def grouped(table: pa.Table, aggregations: tuple[Any, ...] = TOTALS) -> pa.Table | None:
    return group_by_one_key(table, Aggregate(keys=("k",), aggregations=aggregations))


def assert_as_pyarrow(table: pa.Table) -> None:
    answer = grouped(table)
    assert answer is not None
    expected = table.group_by("k", use_threads=False).aggregate([(list(c) if c == () else c, f) for c, f in TOTALS])
    assert_same_rows(answer, expected)


def small(kind: pa.DataType) -> st.SearchStrategy[list[int | None]]:
    """Few values and nulls, so that keys meet and sums stay exact."""
    return st.lists(st.none() | st.integers(0 if kind in KEYS[2:4] else -3, 3), max_size=40)


@pytest.mark.parametrize("kind", KEYS, ids=str)
@given(data=st.data())
def test_keys_of_every_type_known_are_grouped_as_pyarrow_groups_them(kind: pa.DataType, data: st.DataObject) -> None:
    keys = data.draw(small(kind))
    if kind == pa.date64():
        keys = [key and key * 86_400_000 for key in keys]
    bits = pa.int32() if kind.bit_width == 32 else pa.int64()
    column = pa.array(keys, kind if pa.types.is_integer(kind) else bits).cast(kind)
    values = pa.array([data.draw(st.none() | st.integers(-9, 9)) for _ in keys], pa.int64())
    cut = data.draw(st.integers(0, len(keys)))
    table = pa.table({"k": column, "v": values})
    assert_as_pyarrow(pa.concat_tables([table.slice(0, cut), table.slice(cut)]))


@pytest.mark.parametrize("kind", VALUES, ids=str)
def test_sums_of_every_type_known_are_pyarrows_and_wrap_round_as_they_do(kind: pa.DataType) -> None:
    largest = 1.5e300 if kind == pa.float64() else 1.5 if kind == pa.float32() else 2 ** (kind.bit_width - 1) - 1
    values = [largest, 1, None, largest, None, largest, 2, None]
    assert_as_pyarrow(
        pa.table({"k": pa.array([1, 1, 1, 2, 3, 1, None, None], pa.int64()), "v": pa.array(values, kind)})
    )


def test_sums_of_groups_that_had_no_nulls_before_the_first_null_stay() -> None:
    first = pa.table({"k": pa.array(range(20_000), pa.int64()), "v": pa.array([1] * 20_000)})
    nulls = pa.table({"k": pa.array(range(10_000, 30_000), pa.int64()), "v": pa.array([None] * 20_000, pa.int64())})
    assert_as_pyarrow(pa.concat_tables([first, nulls, first]))


@pytest.mark.parametrize("step", [1, 1 << 32, 0x9E3779B97F4A7C15])
def test_many_keys_in_runs_and_out_of_order_are_found_again_while_the_table_grows(step: int) -> None:
    keys = [(number * step) % (1 << 63) for number in range(30_000)]
    for order in (sorted(keys * 2), keys + keys, keys + keys[::-1]):
        assert_as_pyarrow(pa.table({"k": pa.array(order, pa.int64()), "v": pa.array(range(60_000))}))


def test_a_table_without_rows_gives_no_groups_and_pyarrows_types() -> None:
    assert_as_pyarrow(pa.table({"k": pa.array([], pa.date32()), "v": pa.array([], pa.float32())}))


@pytest.mark.parametrize(
    ("kind", "aggregations"),
    [
        (pa.float64(), TOTALS),
        (pa.string(), TOTALS),
        (pa.int64(), (("v", "min"),)),
        (pa.int64(), (("s", "sum"),)),
        (pa.int64(), (("v", "count", pc.CountOptions(mode="all")),)),
    ],
)
def test_other_keys_aggregates_and_options_are_left_to_acero(kind: pa.DataType, aggregations: tuple[Any, ...]) -> None:
    table = pa.table({"k": pa.array([], kind), "v": pa.array([], pa.int64()), "s": pa.array([], pa.decimal128(9, 2))})
    assert grouped(table, aggregations) is None
