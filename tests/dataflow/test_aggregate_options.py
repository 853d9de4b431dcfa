"""Aggregates with options: split over the shuffle all the same where they can be, and answered as pyarrow does."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.dataflow.aggregate_options import NullRules, count_mode, null_rules
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.interpreter import InterpreterSession
from tests.dataflow.tables import NUMBERS, columns, sessions_arguments
from tests.dataflow.test_aggregates import grouped, is_split

RULES = [
    pc.ScalarAggregateOptions(skip_nulls=skip_nulls, min_count=min_count)
    for skip_nulls in (True, False)
    for min_count in (0, 1, 2, 4)
]
OF_NUMBERS = ["sum", "product", "min", "max", "min_max", "mean"]
TABLE = pa.table(
    {
        "k": ["a", "a", "a", "b", "b", "c", "d", "d"],
        "i": pa.array([1, None, 3, None, None, 7, 2, 4], pa.int16()),
        "f": pa.array([0.5, None, -2.0, None, None, float("nan"), 1.0, 8.0]),
        "b": pa.array([True, None, True, None, None, False, False, True]),
        "s": pa.array(["x", None, "y", None, None, "z", "", "v"]),
        "d": pa.array([1, None, 2, None, None, 3, 4, 5], pa.int32()).cast(pa.decimal128(12, 2)),
    }
)


def check(table: pa.Table, keys: list[str], aggregation: Any, session: InterpreterSession | None = None) -> None:
    session = session or InterpreterSession()
    answer = session.from_table(table).group_by(keys).aggregate([aggregation]).to_table()
    assert_same_rows(answer, grouped(table, keys, [aggregation]))


@pytest.mark.parametrize("keys", [["k"], []], ids=["keys", "no keys"])
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_null_rules_are_kept_by_halves(rules: pc.ScalarAggregateOptions, keys: list[str]) -> None:
    session = InterpreterSession()
    aggregations = [("i", function) for function in OF_NUMBERS]
    aggregations += [("f", "sum"), ("f", "min"), ("f", "mean"), ("b", "any"), ("b", "all"), ("b", "sum"), ("s", "max")]
    for table in (TABLE, TABLE.slice(0, 0)):
        for column, function in aggregations:
            check(table, keys, (column, function, rules), session)
            assert is_split(session), f"{function} of {column}"


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_null_rules_are_kept_for_means_of_decimals(rules: pc.ScalarAggregateOptions) -> None:
    if "min_count=0" in str(rules):  # no values are divided by none, which decimals cannot do: in pyarrow neither
        with pytest.raises(pa.ArrowInvalid, match="Division by 0"):
            check(TABLE, ["k"], ("d", "mean", rules))
        return
    session = InterpreterSession()
    check(TABLE, ["k"], ("d", "mean", rules), session)
    assert is_split(session)


@pytest.mark.parametrize("keys", [["k"], []], ids=["keys", "no keys"])
@pytest.mark.parametrize("mode", ["only_valid", "only_null", "all"])
def test_every_mode_of_count_is_split(mode: str, keys: list[str]) -> None:
    session = InterpreterSession()
    for table in (TABLE, TABLE.slice(0, 0)):
        for column in TABLE.column_names:
            check(table, keys, (column, "count", pc.CountOptions(mode=mode)), session)
            assert is_split(session)


@pytest.mark.parametrize("mode", ["only_valid", "only_null", "all"])
def test_every_mode_of_count_distinct_is_split(mode: str) -> None:
    session = InterpreterSession()
    for column in TABLE.column_names:
        check(TABLE, ["k"], (column, "count_distinct", pc.CountOptions(mode=mode)), session)
        assert is_split(session)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        ("tdigest", pc.TDigestOptions([0.25, 0.75])),
        ("approximate_median", pc.ScalarAggregateOptions(min_count=2)),
    ],
    ids=str,
)
@pytest.mark.parametrize("keys", [["k"], []], ids=["keys", "no keys"])
def test_options_of_aggregates_that_are_computed_whole_are_honoured(
    function: str, options: pc.FunctionOptions, keys: list[str]
) -> None:
    check(TABLE, keys, ("i", function, options))


@pytest.mark.parametrize("function", ["first", "last", "first_last"])
@pytest.mark.parametrize("skip_nulls", [True, False])
def test_first_and_last_go_by_the_rows_order_within_a_partition(function: str, skip_nulls: bool) -> None:
    options = pc.ScalarAggregateOptions(skip_nulls=skip_nulls, min_count=1)
    check(TABLE, ["k"], ("i", function, options), InterpreterSession(pieces=1))


@given(
    st.integers(0, 12).flatmap(
        lambda rows: st.tuples(columns({pa.int8(): st.integers(0, 2)}, rows), columns(NUMBERS, rows))
    ),
    sessions_arguments(),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(OF_NUMBERS), st.sampled_from(RULES)), min_size=1, max_size=3),
)
def test_any_numbers_with_any_null_rules_answer_as_pyarrow(
    values: tuple[pa.Array, pa.Array], arguments: dict[str, int], with_keys: bool, functions: list[Any]
) -> None:
    table = pa.table({"k": values[0], "n": values[1]})
    kind = table["n"].type
    aggregations = [
        ("n", function, rules)
        for function, rules in functions
        if not (function == "product" and (pa.types.is_float32(kind) or pa.types.is_decimal(kind)))
        and not (function == "mean" and pa.types.is_decimal(kind) and null_rules(rules).min_count == 0)
    ]
    keys = ["k"] if with_keys or not aggregations else []
    answer = InterpreterSession(**arguments).from_table(table).group_by(keys).aggregate(aggregations).to_table()
    assert_same_rows(answer, grouped(table, keys, aggregations))


def test_options_are_read_back_and_never_guessed() -> None:
    assert null_rules(None) == NullRules(skip_nulls=True, min_count=1)
    assert null_rules(pc.ScalarAggregateOptions(skip_nulls=False, min_count=7)) == NullRules(
        skip_nulls=False, min_count=7
    )
    assert null_rules(pc.CountOptions(mode="all")) is None
    assert count_mode(pc.CountOptions(mode="only_null")) == "only_null"
    assert count_mode(pc.ScalarAggregateOptions()) is None
