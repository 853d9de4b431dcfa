"""Groupings with each aggregate that pyarrow has, with its options, on columns of any type; what it refuses, we do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import strategies as st

from sabot.dataflow.aggregate_options import null_rules
from sabot.errors import UsageError
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.tables import KEY_VALUES, NUMBERS, PAYLOADS, chunked, columns, tables

from .arena import Arena, Operation

_RULES = [
    pc.ScalarAggregateOptions(skip_nulls=skip_nulls, min_count=min_count)
    for skip_nulls in (True, False)
    for min_count in (0, 1, 3)
]
_COUNTS = [pc.CountOptions(mode=mode) for mode in ("only_valid", "only_null", "all")]
_ANYTHING = {**PAYLOADS, **KEY_VALUES}
_BOOLEANS = {pa.bool_(): st.booleans()}
# What depends on the last digits of floats: these are exact whatever the order.
_EXACT = {kind: values for kind, values in NUMBERS.items() if kind != pa.float32()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """Of columns of these types, with one of the `options` or none; `in_order`: the answer goes by the rows' order."""

    function: str
    kinds: dict[pa.DataType, Any]
    options: Sequence[pc.FunctionOptions] = ()
    in_order: bool = False


AGGREGATIONS = (
    Aggregation(function="sum", kinds=NUMBERS, options=_RULES),
    Aggregation(function="product", kinds=_EXACT, options=_RULES),
    Aggregation(function="mean", kinds=NUMBERS, options=_RULES),
    Aggregation(function="min", kinds=_ANYTHING, options=_RULES),
    Aggregation(function="max", kinds=_ANYTHING, options=_RULES),
    Aggregation(function="min_max", kinds=_ANYTHING, options=_RULES),
    Aggregation(function="any", kinds=_BOOLEANS, options=_RULES),
    Aggregation(function="all", kinds=_BOOLEANS, options=_RULES),
    Aggregation(function="count", kinds=_ANYTHING, options=_COUNTS),
    Aggregation(function="count_distinct", kinds=_ANYTHING, options=_COUNTS),
    Aggregation(function="distinct", kinds=_ANYTHING, options=_COUNTS),
    Aggregation(function="variance", kinds=_EXACT, options=[pc.VarianceOptions(ddof=1, min_count=2)]),
    Aggregation(function="stddev", kinds=_EXACT, options=[pc.VarianceOptions(ddof=1, min_count=2)]),
    Aggregation(function="skew", kinds=_EXACT, options=[pc.SkewOptions(biased=False, min_count=3)]),
    Aggregation(function="kurtosis", kinds=_EXACT, options=[pc.SkewOptions(biased=False, min_count=4)]),
    Aggregation(function="tdigest", kinds=_EXACT, options=[pc.TDigestOptions([0.25, 0.75])]),
    Aggregation(function="approximate_median", kinds=_EXACT, options=_RULES[:3]),
    Aggregation(function="list", kinds=_ANYTHING),
    Aggregation(function="one", kinds=_ANYTHING),
    Aggregation(function="first", kinds=_ANYTHING, options=_RULES, in_order=True),
    Aggregation(function="last", kinds=_ANYTHING, options=_RULES, in_order=True),
    Aggregation(function="first_last", kinds=_ANYTHING, options=_RULES, in_order=True),
)
OTHER_FUNCTIONS = {"count_all", "pivot_wider"}


@st.composite
def _cases(draw: st.DrawFn, aggregation: Aggregation) -> dict[str, Any]:
    table = draw(tables())
    kind = draw(st.sampled_from(list(aggregation.kinds)))
    values = draw(columns({kind: aggregation.kinds[kind]}, table.num_rows))
    table = table.set_column(2, "n", values)
    options = draw(st.sampled_from([None, *aggregation.options]))
    return {
        "table": table,
        "given": draw(chunked(table)),
        "keys": draw(st.sampled_from([["k"], ["k", "h"], []])),
        "aggregate": ("n", aggregation.function, *(() if options is None else (options,))),
        "in_order": aggregation.in_order or draw(st.booleans()),
    }


def _check(arena: Arena, case: dict[str, Any]) -> None:
    table, keys, aggregate = case["table"], case["keys"], case["aggregate"]
    dataset = arena.session.from_table(case["given"])
    grouping = (dataset.sort_by("i") if case["in_order"] else dataset).group_by(keys)
    if not _taken(aggregate[1], table["n"].type, bool(keys)):
        with pytest.raises(UsageError):
            grouping.aggregate([aggregate])
        return
    rules = null_rules(*aggregate[2:]) if len(aggregate) > 2 else null_rules(None)
    if pa.types.is_decimal(table["n"].type) and aggregate[1] == "mean" and rules.min_count == 0:
        return  # no values are divided by none, in pyarrow too
    expected = table.group_by(keys, use_threads=False)
    answer = arena.rows(grouping.aggregate([aggregate]))
    if aggregate[1] == "one":
        _one_of(answer, expected.aggregate([("n", "list")]))
    else:
        assert_same_rows(_lists_sorted(answer), _lists_sorted(expected.aggregate([aggregate])))


@cache
def _taken(function: str, kind: pa.DataType, keyed: bool) -> bool:
    """Whether pyarrow aggregates such a column, with keys or without."""
    if function == "distinct" and pa.types.is_dictionary(kind):
        return keyed  # where there are no rows it ends the process
    nothing = pa.table({"k": pa.array([], pa.int8()), "n": pa.array([], kind)})
    try:
        nothing.group_by(["k"] if keyed else [], use_threads=False).aggregate([("n", function)])
    except (pa.ArrowException, NotImplementedError, KeyError):
        return False
    return True


def _one_of(answer: pa.Table, lists: pa.Table) -> None:
    """Each group has one of its values."""
    keys = lists.column_names[:-1]
    values = {repr([row[key] for key in keys]): list(map(repr, row["n_list"])) for row in lists.to_pylist()}
    ones = {repr([row[key] for key in keys]): repr(row["n_one"]) for row in answer.to_pylist()}
    assert answer.num_rows == len(ones) == len(values)
    assert all(one in values[group] for group, one in ones.items())


def _lists_sorted(table: pa.Table) -> pa.Table:
    """Lists without their order, which a shuffle does not keep."""
    if table.column_names[-1] not in {"n_list", "n_distinct"}:
        return table
    kind = table[-1].type
    values = [None if one is None else sorted(one, key=repr) for one in table[-1].to_pylist()]
    return table.set_column(table.num_columns - 1, table.column_names[-1], pa.array(values, kind))


def _several(arena: Arena, case: dict[str, Any]) -> None:
    table, keys, functions = case["table"], case["keys"], case["functions"]
    aggregates = [([], "count_all") if function == "count_all" else ("n", function) for function in functions]
    answer = arena.session.from_table(case["given"]).group_by(keys).aggregate(aggregates)
    arena.same(answer, table.group_by(keys, use_threads=False).aggregate(aggregates))


def _several_cases() -> st.SearchStrategy[dict[str, Any]]:
    split = st.sampled_from(["sum", "count", "min", "max", "mean", "count_distinct", "count_all"])
    whole = st.sampled_from(["count_all", "variance", "sum", "stddev"])
    functions = st.one_of(*(st.lists(some, min_size=1, max_size=4) for some in (split, split, whole)))
    return tables().flatmap(
        lambda table: st.fixed_dictionaries(
            {
                "table": st.just(table),
                "given": chunked(table),
                "keys": st.sampled_from([["k"], ["h", "k"]]),
                "functions": functions,
            }
        )
    )


@st.composite
def _pivots(draw: st.DrawFn) -> pa.Table:
    """At most one value for a name in a group."""
    places = draw(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["w", "h", "other"])), unique=True))
    groups, names = [place[0] for place in places], [place[1] for place in places]
    values = draw(columns(NUMBERS, len(places)))
    return pa.table({"k": pa.array(groups, pa.int16()), "name": pa.array(names, pa.string()), "value": values})


def _pivot(arena: Arena, table: pa.Table) -> None:
    aggregate = (["name", "value"], "pivot_wider", pc.PivotWiderOptions(["w", "h"]))
    answer = arena.session.from_table(table).group_by("k").aggregate([aggregate])
    arena.same(answer, table.group_by("k", use_threads=False).aggregate([aggregate]))


_GROUP_BY = frozenset({"group_by"})
GROUPS = (
    *(
        Operation(
            name=f"group by, {one.function}",
            methods=_GROUP_BY | ({"sort_by"} if one.in_order else set()),
            cases=_cases(one),
            check=_check,
        )
        for one in AGGREGATIONS
    ),
    Operation(name="group by, several", methods=_GROUP_BY, cases=_several_cases(), check=_several),
    Operation(name="group by, pivot_wider", methods=_GROUP_BY, cases=_pivots(), check=_pivot),
)
