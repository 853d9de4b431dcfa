"""Grouping against pyarrow's, where aggregates are split over the shuffle and where they cannot be."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.dataflow.aggregation import split_aggregation
from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.moments import MOMENTS_OF
from sabot.dataflow.repeatable import repeatable_stages
from sabot.dataflow.stage import Aggregate
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.interpreter import InterpreterSession
from tests.dataflow.tables import KEY_VALUES, every_value, sessions_arguments, tables

SPLIT = ["sum", "count", "min", "max", "min_max", "mean", "product", "variance", "stddev", "skew", "kurtosis"]
BY_ORDER = ["first", "last", "first_last"]
SPLIT_WITH_KEYS = ["one", "distinct", "count_distinct"]
WHOLE = ["approximate_median", "tdigest"]
WHOLE_WITH_KEYS = ["list"]

TABLE = pa.table(
    {
        "k": pa.array(["a", "b", None, "a", "b", "a", None, "c"]),
        "x": pa.array([1, 2, 3, None, 5, 6, 7, None], pa.int32()),
        "f": pa.array([1.5, float("nan"), -0.5, 2.0, None, 1e300, 4.0, None]),
        "b": pa.array([True, False, None, True, True, False, None, None]),
        "d": pa.array([decimal.Decimal(n) / 4 if n else None for n in range(8)], pa.decimal128(9, 2)),
        "s": pa.array(["x", "y", "x", None, "y", "z", "x", None]),
        "t": pa.array([datetime.datetime(2020, 1, n + 1) for n in range(8)], pa.timestamp("s")),
        "u": pa.array([2**62] * 8, pa.uint64()),
    }
)


def grouped(table: pa.Table, keys: list[str], aggregations: list[Any]) -> pa.Table:
    return table.group_by(keys, use_threads=False).aggregate(aggregations)


def is_split(session: InterpreterSession) -> bool:
    return len([step for stage in session.plans[-1].stages for step in stage.steps if isinstance(step, Aggregate)]) == 2


@pytest.mark.parametrize("keys", [["k"], ["k", "b"], []])
@pytest.mark.parametrize("function", SPLIT)
@pytest.mark.parametrize("column", ["x", "f", "d", "u"])
def test_split_aggregates_of_numbers_answer_as_pyarrow(column: str, function: str, keys: list[str]) -> None:
    session = InterpreterSession()
    answer = session.from_table(TABLE).group_by(keys).aggregate([(column, function)]).to_table()
    assert_same_rows(answer, grouped(TABLE, keys, [(column, function)]))
    assert is_split(session) == (column != "d" or function != "product")


@pytest.mark.parametrize("keys", ["k", []])
@pytest.mark.parametrize("aggregation", [("b", "any"), ("b", "all"), ("b", "sum"), ("b", "mean"), ([], "count_all")])
def test_split_aggregates_of_booleans_answer_as_pyarrow(aggregation: Any, keys: Any) -> None:
    session = InterpreterSession()
    answer = session.from_table(TABLE).group_by(keys).aggregate([aggregation]).to_table()
    assert_same_rows(answer, grouped(TABLE, keys, [aggregation]))
    assert is_split(session)


@pytest.mark.parametrize("keys", ["k", []])
@pytest.mark.parametrize("aggregation", [("s", "min"), ("s", "max"), ("t", "min"), ("s", "count"), ("t", "max")])
def test_split_aggregates_of_strings_and_times_answer_as_pyarrow(aggregation: Any, keys: Any) -> None:
    session = InterpreterSession()
    answer = session.from_table(TABLE).group_by(keys).aggregate([aggregation]).to_table()
    assert_same_rows(answer, grouped(TABLE, keys, [aggregation]))
    assert is_split(session)


@pytest.mark.parametrize("keys", ["k", []])
@pytest.mark.parametrize("function", WHOLE)
def test_aggregates_that_cannot_be_split_are_computed_whole(function: str, keys: Any) -> None:
    session = InterpreterSession()
    answer = session.from_table(TABLE).group_by(keys).aggregate([("x", function), ("x", "sum")]).to_table()
    assert_same_rows(answer, grouped(TABLE, keys, [("x", function), ("x", "sum")]))
    assert not is_split(session)


@pytest.mark.parametrize("function", WHOLE_WITH_KEYS)
def test_aggregates_that_need_keys_are_computed_whole(function: str) -> None:
    session = InterpreterSession(pieces=1)
    rows = TABLE.filter(pc.is_valid(pc.field("x")))
    answer = session.from_table(rows).group_by("k").aggregate([("x", function)]).to_table()
    assert_same_rows(_lists_sorted(answer), _lists_sorted(grouped(rows, ["k"], [("x", function)])))
    assert not is_split(session)


@pytest.mark.parametrize("column", ["x", "s", "f", "b", "t"])
@pytest.mark.parametrize("keys", [["k"], []])
@pytest.mark.parametrize("function", BY_ORDER)
@pytest.mark.parametrize("skip_nulls", [True, False])
def test_first_and_last_are_sent_once_a_task_and_go_by_the_order_of_rows(
    function: str, keys: list[str], column: str, skip_nulls: bool
) -> None:
    session = InterpreterSession()  # whose tasks come one after the other
    for min_count in (1, 3, 7):
        aggregation = (column, function, pc.ScalarAggregateOptions(skip_nulls=skip_nulls, min_count=min_count))
        for table in (TABLE, TABLE.slice(3, 2), TABLE.slice(0, 0)):
            answer = session.from_table(table).group_by(keys).aggregate([aggregation]).to_table()
            assert_same_rows(answer, grouped(table, keys, [aggregation]))
            assert is_split(session) == (skip_nulls or bool(keys))


@pytest.mark.parametrize(
    ("function", "repeatable"), [*((function, False) for function in BY_ORDER), ("variance", True)]
)
def test_a_task_that_sends_first_values_has_to_prove_its_replay(function: str, repeatable: bool) -> None:
    session = InterpreterSession()
    session.from_table(TABLE).group_by("k").aggregate([("x", function)]).to_table()
    assert is_split(session)
    assert (0 in repeatable_stages(session.plans[-1])) == repeatable


@pytest.mark.parametrize("column", ["x", "s", "f", "b"])
@pytest.mark.parametrize("function", ["distinct", "count_distinct"])
def test_distinct_values_are_sent_once_a_task(function: str, column: str) -> None:
    session = InterpreterSession()
    others = [("x", "sum"), ([], "count_all"), ("f", "mean")]
    answer = session.from_table(TABLE).group_by("k").aggregate([*others, (column, function)]).to_table()
    expected = grouped(TABLE, ["k"], [*others, (column, function)])
    assert_same_rows(_lists_sorted(answer), _lists_sorted(expected))
    assert is_split(session)


@pytest.mark.parametrize("function", ["distinct", "count_distinct"])
def test_distinct_values_of_two_columns_or_beside_others_without_keys_are_computed_whole(function: str) -> None:
    session = InterpreterSession()
    session.from_table(TABLE).group_by("k").aggregate([("x", function), ("s", function)]).to_table()
    assert not is_split(session)
    if function == "count_distinct":
        aggregations = [("x", function), ([], "count_all")]
        for table in (TABLE, TABLE.slice(0, 0)):
            answer = session.from_table(table).group_by([]).aggregate(aggregations).to_table()
            assert_same_rows(answer, grouped(table, [], aggregations))
            assert not is_split(session)


@pytest.mark.parametrize("mode", ["only_valid", "only_null", "all"])
@pytest.mark.parametrize("column", TABLE.column_names)
def test_distinct_values_of_one_column_are_counted_without_keys_as_groups(column: str, mode: str) -> None:
    session = InterpreterSession()
    aggregation = (column, "count_distinct", pc.CountOptions(mode=mode))
    for table in (TABLE, TABLE.slice(0, 0)):
        answer = session.from_table(table).group_by([]).aggregate([aggregation]).to_table()
        assert_same_rows(answer, grouped(table, [], [aggregation]))
        assert len(session.plans[-1].stages) == 3


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_distinct_values_of_a_dictionary_are_those_of_its_values(rows: int) -> None:
    """pyarrow itself ends the process where there is no row, so that planning would, and a task without rows."""
    table = pa.table({"k": [1, 1, 2], "s": pa.array(["x", "y", None]).dictionary_encode()}).slice(0, rows)
    answer = InterpreterSession(pieces=1).from_table(table).group_by("k").aggregate([("s", "distinct")]).to_table()
    assert answer.schema.field("s_distinct").type == pa.list_(table["s"].type)
    wanted: dict[int, list[str]] = {1: ["x", "y"][:rows], 2: []}
    assert {row["k"]: sorted(row["s_distinct"], key=str) for row in answer.to_pylist()} == {
        key: wanted[key] for key in set(table["k"].to_pylist())
    }


def test_one_is_any_value_of_its_group() -> None:
    session = InterpreterSession()
    answer = session.from_table(TABLE).group_by("k").aggregate([("s", "one")]).to_table()
    values = {row["k"]: set(row["s_list"]) for row in grouped(TABLE, ["k"], [("s", "list")]).to_pylist()}
    assert {row["k"] for row in answer.to_pylist()} == set(values)
    assert all(row["s_one"] in values[row["k"]] for row in answer.to_pylist())
    assert answer.schema.equals(grouped(TABLE, ["k"], [("s", "one")]).schema)
    assert is_split(session)


def test_every_grouped_aggregate_that_pyarrow_has_is_tested_here() -> None:
    known = {name.removeprefix("hash_") for name in pc.list_functions() if name.startswith("hash_")}
    known -= set(MOMENTS_OF.values())  # ours
    tested = {*SPLIT, *BY_ORDER, *SPLIT_WITH_KEYS, *WHOLE, *WHOLE_WITH_KEYS, "any", "all", "count_all", "pivot_wider"}
    assert known == tested


def test_pivot_wider_takes_two_columns_and_options() -> None:
    table = pa.table({"k": [1, 1, 2], "name": ["w", "h", "w"], "value": [10, 20, 30]})
    aggregation = (["name", "value"], "pivot_wider", pc.PivotWiderOptions(["w", "h"]))
    answer = InterpreterSession().from_table(table).group_by("k").aggregate([aggregation]).to_table()
    assert_same_rows(answer, grouped(table, ["k"], [aggregation]))


@pytest.mark.parametrize(
    "options",
    [pc.ScalarAggregateOptions(skip_nulls=False), pc.ScalarAggregateOptions(min_count=3), pc.CountOptions(mode="all")],
    ids=["nulls are not skipped", "min_count", "count all"],
)
@pytest.mark.parametrize("keys", [["k"], []])
def test_options_are_honoured(options: pc.FunctionOptions, keys: list[str]) -> None:
    function = "count" if isinstance(options, pc.CountOptions) else "sum"
    answer = InterpreterSession().from_table(TABLE).group_by(keys).aggregate([("x", function, options)]).to_table()
    assert_same_rows(answer, grouped(TABLE, keys, [("x", function, options)]))


def test_names_and_their_order_are_those_of_pyarrow() -> None:
    aggregations = [("x", "sum"), ("f", "mean"), ("x", "sum"), ([], "count_all"), (["b"], "hash_any"), ("k", "count")]
    answer = InterpreterSession().from_table(TABLE).group_by(["b", "k"]).aggregate(aggregations).to_table()
    assert_same_rows(answer, grouped(TABLE, ["b", "k"], aggregations))


def test_grouping_without_aggregates_gives_the_distinct_keys() -> None:
    answer = InterpreterSession().from_table(TABLE).group_by(["k", "b"]).aggregate([]).to_table()
    assert_same_rows(answer, grouped(TABLE, ["k", "b"], []))


@pytest.mark.parametrize("keys", [["k"], []])
def test_zero_rows_answer_as_pyarrow(keys: list[str]) -> None:
    aggregations = [("x", "sum"), ("x", "count"), ([], "count_all"), ("f", "mean"), ("b", "any"), ("s", "min")]
    answer = InterpreterSession().from_table(TABLE.slice(0, 0)).group_by(keys).aggregate(aggregations).to_table()
    assert_same_rows(answer, grouped(TABLE.slice(0, 0), keys, aggregations))


@pytest.mark.parametrize("name", ["x_sum", "x_sum_sum", "x as double", "x_count", "count_all"])
def test_columns_named_like_partial_results_do_not_collide_with_them(name: str) -> None:
    table = TABLE.rename_columns({"k": name})
    aggregations = [("x", "sum"), ("x", "mean"), ([], "count_all"), (name, "count")]
    answer = InterpreterSession().from_table(table).group_by(name).aggregate(aggregations).to_table()
    assert_same_rows(answer, grouped(table, [name], aggregations))
    renamed = TABLE.rename_columns({"u": name})
    answer = InterpreterSession().from_table(renamed).group_by("k").aggregate([("x", "mean"), (name, "max")]).to_table()
    assert_same_rows(answer, grouped(renamed, ["k"], [("x", "mean"), (name, "max")]))


@pytest.mark.parametrize(
    "aggregations", [[("x", "sum")], [("x", "mean")], [([], "count_all")]], ids=["sum", "mean", "count_all"]
)
@pytest.mark.parametrize("suffix", ["", "_sum", "_sum_sum"], ids=["itself", "sum", "sum of sums"])
def test_a_key_named_like_a_partial_result_has_the_rows_aggregated_whole(aggregations: Any, suffix: str) -> None:
    partial = {"sum": "x_sum", "mean": "x as double", "count_all": "count_all"}[aggregations[0][1]]
    name = partial + suffix
    table = TABLE.rename_columns({"k": name})
    answer = InterpreterSession().from_table(table).group_by(name).aggregate(aggregations).to_table()
    assert_same_rows(answer, grouped(table, [name], aggregations))


def test_a_column_named_like_a_cast_and_of_its_type_is_not_replaced_by_it() -> None:
    table = pa.table({"x as double": [1.0, 1.0, 2.0], "x": [5, 6, 7]})
    for keys, aggregations in (
        (["x as double"], [("x", "mean")]),
        ([], [("x", "mean"), ("x as double", "sum")]),
    ):
        answer = InterpreterSession().from_table(table).group_by(keys).aggregate(aggregations).to_table()
        assert_same_rows(answer, grouped(table, keys, aggregations))


def test_two_partial_results_of_the_same_name_are_told_apart() -> None:
    table = pa.table({"k": [1, 1, 2], "count": [True, False, True]})
    for aggregations in ([([], "count_all"), ("count", "all")], [("count", "all"), ([], "count_all")]):
        answer = InterpreterSession().from_table(table).group_by("k").aggregate(aggregations).to_table()
        assert_same_rows(answer, grouped(table, ["k"], aggregations))


@pytest.mark.parametrize("kind", KEY_VALUES, ids=str)
def test_every_type_of_key_groups_as_in_pyarrow(kind: pa.DataType) -> None:
    session = InterpreterSession()
    table = every_value(kind)
    answer = session.from_table(table).group_by("k").aggregate([("i", "sum"), ([], "count_all")]).to_table()
    assert_same_rows(answer, grouped(table, ["k"], [("i", "sum"), ([], "count_all")]))
    assert is_split(session)


def test_dictionaries_that_differ_between_chunks_group_by_value() -> None:
    chunks = pa.chunked_array([pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "c"]).dictionary_encode()])
    answer = apply_table_step(
        Aggregate(keys=("k",), aggregations=(("v", "sum"),)), [pa.table({"k": chunks, "v": [1, 2, 3, 4]})]
    )
    assert dict(zip(answer["k"].to_pylist(), answer["v_sum"].to_pylist(), strict=True)) == {"a": 1, "b": 5, "c": 4}


def test_mean_of_integers_does_not_overflow_where_their_sum_does() -> None:
    table = pa.table({"k": [1] * 8, "x": [2**62] * 8})
    answer = InterpreterSession().from_table(table).group_by("k").aggregate([("x", "mean"), ("x", "sum")]).to_table()
    assert answer.to_pylist() == [{"k": 1, "x_mean": 2.0**62, "x_sum": 0}]


def test_an_aggregation_after_a_gathering_needs_no_shuffle() -> None:
    session = InterpreterSession()
    dataset = session.from_table(TABLE).sort_by("x").group_by("k").aggregate([("x", "first")])
    expected = TABLE.sort_by("x").group_by("k", use_threads=False).aggregate([("x", "first")])
    assert_same_rows(dataset.to_table(), expected)
    assert len(session.plans[-1].stages) == 2


@given(
    tables(),
    sessions_arguments(),
    st.lists(st.sampled_from(["k", "h"]), max_size=2, unique=True),
    st.lists(st.sampled_from([*SPLIT, "count_distinct", "count_all"]), min_size=1, max_size=4),
)
def test_any_table_groups_as_pyarrow_groups_it(
    table: pa.Table, arguments: dict[str, int], keys: list[str], functions: list[str]
) -> None:
    # Dictionaries as values, not as keys, are beyond most of pyarrow's aggregates.
    aggregations = [([], function) if function == "count_all" else ("n", function) for function in functions]
    answer = InterpreterSession(**arguments).from_table(table).group_by(keys).aggregate(aggregations).to_table()
    if pa.types.is_float32(table["n"].type) and "product" in functions:
        assert answer.schema.equals(grouped(table, keys, aggregations).schema)
    else:
        assert_same_rows(answer, grouped(table, keys, aggregations))


def test_a_split_whose_types_would_differ_is_refused() -> None:
    assert split_aggregation(("k",), (("d", "product"),), TABLE.schema) is None
    assert split_aggregation(("k",), (("x", "sum"), ("x", "list")), TABLE.schema) is None
    assert split_aggregation(("k",), (("x", "sum"), ("x", "mean")), TABLE.schema) is not None


def _lists_sorted(table: pa.Table) -> pa.Table:
    """Lists without their order, which a shuffle does not keep."""
    name = table.column_names[-1]
    if not pa.types.is_list(table[name].type):
        return table
    column = pa.array([sorted(values, key=repr) for values in table[name].to_pylist()], table[name].type)
    return table.set_column(table.num_columns - 1, name, column)
