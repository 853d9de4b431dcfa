"""Variance, stddev, skew and kurtosis put together of moments: as pyarrow has them, exact where its own are coarse."""

from __future__ import annotations

import decimal
import math
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.dataflow.aggregate_options import SpreadRules, spread_rules
from sabot.dataflow.repeatable import repeatable_stages
from sabot.dataflow.stage import HashShuffle
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.interpreter import InterpreterSession
from tests.dataflow.tables import columns, sessions_arguments
from tests.dataflow.test_aggregates import grouped, is_split

VARIANCE_OPTIONS = [
    pc.VarianceOptions(ddof=ddof, skip_nulls=skip_nulls, min_count=min_count)
    for ddof in (0, 1, 3)
    for skip_nulls in (True, False)
    for min_count in (0, 2, 5)
]
SKEW_OPTIONS = [
    pc.SkewOptions(skip_nulls=skip_nulls, biased=biased, min_count=min_count)
    for biased in (True, False)
    for skip_nulls in (True, False)
    for min_count in (0, 2, 5)
]
OPTIONS: dict[str, list[pc.FunctionOptions]] = {
    "variance": VARIANCE_OPTIONS,
    "stddev": VARIANCE_OPTIONS,
    "skew": SKEW_OPTIONS,
    "kurtosis": SKEW_OPTIONS,
}
CASES = [(function, options) for function, known in OPTIONS.items() for options in known]
NUMBERS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): st.integers(-(2**40), 2**40),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.uint8(): st.integers(0, 255),
    pa.float64(): st.integers(-1000, 1000).map(lambda n: n / 8) | st.sampled_from([math.nan, math.inf, -math.inf]),
    pa.float32(): st.integers(-1000, 1000).map(lambda n: n / 8),
    pa.decimal128(9, 2): st.integers(-(10**6), 10**6).map(lambda n: decimal.Decimal(n) / 100),
}


@given(
    st.integers(0, 14).flatmap(
        lambda rows: st.tuples(columns({pa.int8(): st.integers(0, 2)}, rows), columns(NUMBERS, rows))
    ),
    sessions_arguments(),
    st.booleans(),
    st.lists(st.sampled_from(CASES), min_size=1, max_size=3),
)
def test_any_numbers_with_any_options_answer_as_pyarrow(
    values: tuple[pa.Array, pa.Array], arguments: dict[str, int], with_keys: bool, cases: list[Any]
) -> None:
    keys = ["k"] if with_keys else []
    # In one chunk: pyarrow's own answer without keys forgets a null that only some chunks have.
    table = pa.table({"k": values[0], "n": values[1]}).combine_chunks()
    aggregations = [("n", function, options) for function, options in cases]
    session = InterpreterSession(**arguments)
    answer = session.from_table(table).group_by(keys).aggregate(aggregations).to_table()
    assert_same_rows(answer, grouped(table, keys, aggregations))
    assert is_split(session)


def exact(values: list[float], function: str) -> float:
    """Of the doubles as they are, in fractions."""
    numbers = [Fraction(value) for value in values]
    mean = sum(numbers) / len(numbers)
    second, third, fourth = (sum((number - mean) ** power for number in numbers) / len(numbers) for power in (2, 3, 4))
    match function:
        case "variance":
            return float(second)
        case "stddev":
            return math.sqrt(second)
        case "skew":
            return float(third) / float(second) ** 1.5 if second else math.nan
    return float(fourth / second**2) - 3 if second else math.nan


def error(value: float, true: float) -> float:
    return 0.0 if math.isnan(value) and math.isnan(true) else abs(value - true) / max(abs(true), 1.0)


@given(
    st.sampled_from([0.0, 1e6, -1e9, 1e12, 3e15]),
    st.lists(st.integers(-64, 64), min_size=1, max_size=24),
    st.sampled_from([1.0, 0.125, 1e-3]),
    sessions_arguments(),
)
def test_large_offsets_cost_no_digits(offset: float, steps: list[int], scale: float, arguments: dict[str, int]) -> None:
    values = [offset + step * scale for step in steps]
    aggregations = [("n", function) for function in OPTIONS]
    for keys in (["k"], []):
        dataset = InterpreterSession(**arguments).from_table(pa.table({"k": [1] * len(values), "n": values}))
        answer = dataset.group_by(keys).aggregate(aggregations).to_table()
        for function in ("variance", "stddev"):
            true = exact(values, function)
            assert answer[f"n_{function}"][0].as_py() == pytest.approx(true, rel=1e-9, abs=0), (function, values)
        for function in ("skew", "kurtosis"):
            assert error(answer[f"n_{function}"][0].as_py(), exact(values, function)) < 1e-9, (function, values)


def test_pyarrow_loses_digits_where_rows_lie_in_many_chunks_far_from_zero() -> None:
    """Why answers are held against fractions there, and not against pyarrow."""
    values = [1e9 + (7 * row % 100) / 128 for row in range(300)]
    rows = pa.table({"k": [1] * 300, "n": values})
    chunks = pa.concat_tables([rows.slice(row, 3) for row in range(0, 300, 3)])
    (theirs,) = grouped(chunks, ["k"], [("n", "variance")])["n_variance"].to_pylist()
    session = InterpreterSession(pieces=100)
    (ours,) = (
        session.from_table(chunks).group_by("k").aggregate([("n", "variance")]).to_table()["n_variance"].to_pylist()
    )
    true = exact(values, "variance")
    assert abs(theirs / true - 1) > 1e-9
    assert abs(ours / true - 1) < 1e-13


@pytest.mark.parametrize("outlier", [1e12, -1e8])
def test_a_first_value_far_from_all_others_costs_no_digits(outlier: float) -> None:
    values = [outlier, *(row % 17 / 16 for row in range(3000))]
    moments = pc.call_function("sabot_moments_4", [pa.array(values)]).as_py()
    mean = moments["sum_1"] / moments["count"]
    assert moments["sum_2"] / moments["count"] - mean**2 == pytest.approx(exact(values, "variance"), rel=1e-12)


@pytest.mark.parametrize("function", OPTIONS)
def test_squares_beyond_what_a_double_holds_are_infinite_as_in_pyarrow(function: str) -> None:
    table = pa.table({"k": [1, 1, 1], "n": [1e300, 2.0, -1e300]})
    answer = InterpreterSession().from_table(table).group_by("k").aggregate([("n", function)]).to_table()
    assert_same_rows(answer, grouped(table, ["k"], [("n", function)]))


def test_a_null_of_one_task_is_seen_without_keys_too() -> None:
    table = pa.concat_tables([pa.table({"n": pa.array([None, 1.0])}), pa.table({"n": [2.0, 4.0]})])
    aggregation = ("n", "variance", pc.VarianceOptions(skip_nulls=False))
    answer = InterpreterSession().from_table(table).group_by([]).aggregate([aggregation]).to_table()
    assert answer["n_variance"].to_pylist() == [None]


@pytest.mark.parametrize("keyed_by", ["k", "n_variance"])
def test_a_variance_is_no_key_that_a_replay_need_not_prove(keyed_by: str) -> None:
    session = InterpreterSession()
    groups = session.from_table(pa.table({"k": [1, 2], "n": [1.0, 2.0]})).group_by("k").aggregate([("n", "variance")])
    groups.repartition([keyed_by], 2).to_table()
    plan = session.plans[-1]
    (last,) = [stage for stage in plan.stages if isinstance(stage.output, HashShuffle) and stage.output.num_partitions]
    assert (last.stage_id in repeatable_stages(plan)) == (keyed_by == "k")


def test_options_of_spreads_are_read_back_and_never_guessed() -> None:
    for function, options in CASES:
        rules = spread_rules(function, options)
        assert rules is not None
        assert str(rules.min_count) in str(options) and str(rules.skip_nulls).lower() in str(options)
    assert spread_rules("variance", pc.VarianceOptions(ddof=2)) == SpreadRules(ddof=2)
    assert spread_rules("skew", pc.SkewOptions(biased=False)) == SpreadRules(biased=False)
    assert spread_rules("skew", pc.VarianceOptions()) is None
    assert spread_rules("variance", pc.ScalarAggregateOptions()) is None


def test_moments_are_made_of_slices_and_merged_of_slices() -> None:
    rows = pa.array([None, 1.0, 2.0, None, 4.0, 100.0])
    whole = pc.call_function("sabot_moments_2", [rows.slice(1, 4)]).as_py()
    assert whole["count"] == 3
    parts = pa.concat_arrays(
        [
            pa.array([pc.call_function("sabot_moments_2", [rows.slice(*cut)])])
            for cut in ((4, 2), (1, 1), (2, 2), (4, 1))
        ]
    )
    merged = pc.call_function("sabot_moments_2", [parts.slice(1)]).as_py()
    assert merged == pytest.approx(whole)
