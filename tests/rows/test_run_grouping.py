"""Groups of rows that lie side by side, made natively, against pyarrow's group_by."""

from __future__ import annotations

import datetime
import decimal
import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.grouping import group_declaration
from sabot.dataflow.run_grouping import group_runs
from sabot.dataflow.stage import Aggregate
from sabot.native._native import RunGrouping
from tests.dataflow.comparing import assert_same_rows

KEYS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-128, 127),
    pa.uint16(): st.integers(0, 3),
    pa.int32(): st.integers(-2, 2),
    pa.uint64(): st.sampled_from([0, 1, 2**63, 2**64 - 1]),
    pa.int64(): st.sampled_from([-(2**63), -1, 0, 2**63 - 1]),
    pa.date32(): st.sampled_from([datetime.date(1960, 1, 1), datetime.date(2000, 1, 1)]),
    pa.timestamp("us"): st.sampled_from([datetime.datetime(1960, 1, 1), datetime.datetime(2000, 1, 1)]),
    pa.decimal128(20, 2): st.sampled_from([decimal.Decimal("1.50"), decimal.Decimal("-9999999999999.99")]),
}
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-128, 127),
    pa.uint32(): st.integers(0, 2**32 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float32(): st.integers(-8, 8).map(lambda n: n / 4) | st.just(math.nan),
    pa.float64(): st.integers(-8, 8).map(lambda n: n / 4) | st.sampled_from([math.nan, math.inf]),
    pa.decimal128(12, 3): st.integers(-(10**11), 10**11).map(lambda n: decimal.Decimal(n).scaleb(-3)),
}
AGGREGATES = [("sum", "x"), ("count", "x"), ("count_all", None), ("min", "x"), ("max", "x"), ("count", "s")]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Keys k and h, values x, texts s, in runs, with nulls; a slice of a larger one."""
    runs = draw(st.lists(st.integers(1, 5), max_size=8))
    columns: dict[str, pa.Array] = {}
    for name in "kh":
        kind = draw(st.sampled_from(list(KEYS)))
        values = [draw(st.none() | KEYS[kind]) for _ in runs]
        columns[name] = pa.array([v for v, times in zip(values, runs, strict=True) for _ in range(times)], kind)
    kind, rows = draw(st.sampled_from(list(VALUES))), sum(runs)
    columns["x"] = pa.array([draw(st.none() | VALUES[kind]) for _ in range(rows)], kind)
    columns["s"] = pa.array([draw(st.none() | st.just("text")) for _ in range(rows)], pa.string())
    start = draw(st.integers(0, rows))
    return pa.table(columns).slice(start, draw(st.integers(0, rows)))


def expected_of(table: pa.Table, keys: list[str]) -> pa.Table:
    aggregations = tuple(((column if column else ()), function) for function, column in AGGREGATES)
    return group_declaration(table, Aggregate(keys=tuple(keys), aggregations=aggregations)).to_table(use_threads=False)


def runs_of(table: pa.Table, keys: list[str], *, ascending: bool, runs_max: int = 10**6) -> pa.Table | None:
    grouping = RunGrouping(table.schema, keys, AGGREGATES, ascending=ascending)
    if not grouping.takes:
        return None
    batches = table.combine_chunks().to_batches()
    batch = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    runs = grouping.group(batch, runs_max)
    names = [*keys, *("_".join(filter(None, (column, function))) for function, column in AGGREGATES)]
    return None if runs is None else pa.Table.from_arrays(runs.columns, names=names)


def tuples(table: pa.Table, keys: list[str]) -> list[tuple[Any, ...]]:
    return [tuple(row[key] for key in keys) for row in table.select(keys).to_pylist()]


@given(tables(), st.sampled_from([["k"], ["k", "h"], ["h", "k"]]))
def test_each_run_is_what_pyarrow_makes_of_its_rows(table: pa.Table, keys: list[str]) -> None:
    runs = runs_of(table, keys, ascending=False)
    if table.num_rows == 0:
        assert runs is None
        return
    assert runs is not None
    rows = tuples(table, keys)
    starts = [row for row in range(len(rows)) if row == 0 or rows[row] != rows[row - 1]]
    wanted = [
        expected_of(table.slice(start, stop - start), keys)
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True)
    ]
    assert_same_rows(runs, pa.concat_tables(wanted), ordered=True)


@given(tables(), st.sampled_from([["k"], ["k", "h"]]), st.booleans())
def test_ascending_runs_are_whole_groups_and_others_are_refused(
    table: pa.Table, keys: list[str], ordered: bool
) -> None:
    if ordered:
        table = table.filter(pc.is_valid(pc.field("k")) & pc.is_valid(pc.field("h")))
        table = table.sort_by([(key, "ascending") for key in keys])
    runs = runs_of(table, keys, ascending=True)
    rows = tuples(table, keys)
    decimals = any(pa.types.is_decimal(table[key].type) for key in keys)
    values = [value for row in rows for value in row]
    if not rows or decimals or None in values or rows != sorted(rows):
        assert runs is None
    else:
        assert runs is not None
        assert_same_rows(runs, expected_of(table, keys), ordered=True)


def test_more_runs_than_wanted_are_refused() -> None:
    table = pa.table({"k": [1, 1, 2, 3], "x": [1, 2, 3, 4], "s": ["a"] * 4})
    assert runs_of(table, ["k"], ascending=False, runs_max=2) is None
    assert runs_of(table, ["k"], ascending=False, runs_max=3) is not None


@pytest.mark.parametrize(
    "kind", [pa.float64(), pa.string(), pa.bool_(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_keys_of_other_types_are_not_taken(kind: pa.DataType) -> None:
    schema = pa.schema([("k", kind), ("x", pa.int64())])
    assert not RunGrouping(schema, ["k"], [("sum", "x")], ascending=False).takes


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        ("sum", pa.bool_()),
        ("sum", pa.duration("s")),
        ("min", pa.string()),
        ("count", pa.null()),
        ("product", pa.int8()),
    ],
    ids=str,
)
def test_aggregates_of_other_types_are_not_taken(function: str, kind: pa.DataType) -> None:
    schema = pa.schema([("k", pa.int64()), ("x", kind)])
    assert not RunGrouping(schema, ["k"], [(function, "x")], ascending=False).takes


@pytest.mark.parametrize("order", ["sorted", "random", "nulls", "few rows"])
def test_a_grouping_answers_the_same_with_and_without_a_hash_table(order: str) -> None:
    rows = 100 if order == "few rows" else 20_000
    keys = [None if order == "nulls" and n % 8 == 0 else n // 3 for n in range(rows)]
    table = pa.table({"k": pa.array(keys, pa.int64()), "x": pc.random(rows, initializer=1)})
    if order == "random":
        table = table.take(pc.sort_indices(table["x"]))
    chunked = pa.concat_tables([table.slice(start, 3333) for start in range(0, rows, 3333)])
    step = Aggregate(keys=("k",), aggregations=(("x", "sum"), ("x", "max"), ((), "count_all")))
    used = group_runs(step, chunked, ascending=True) is not None
    assert used == (order == "sorted")
    expected = group_declaration(table, step).to_table(use_threads=False)
    assert_same_rows(apply_table_step(step, [chunked]), expected)
