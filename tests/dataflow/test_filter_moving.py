"""Filters go down the plan as far as they may, are said to have, and change no answer by it."""

from __future__ import annotations

from decimal import Decimal
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabot.dataflow.dataset import Dataset
from sabot.dataflow.explain import explain_job
from sabot.dataflow.planner import plan_job
from sabot.dataflow.stage import Filter, JoinType
from sabot.native._native import always_answers, conjuncts, named_columns, renamed
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.interpreter import InterpreterSession

SESSION = InterpreterSession()
LEFT = pa.table(
    {
        "k": pa.array([1, 2, 2, 3, None, 5], pa.int64()),
        "s": ["a", "b", None, "a", "c", "d"],
        "x": pa.array([0, 1, 2, None, 4, 5], pa.int64()),
    }
)
RIGHT = pa.table(
    {
        "k": pa.array([2, 3, 3, 4, None], pa.int64()),
        "s": ["b", "a", "q", None, "c"],
        "y": pa.array([10, None, 30, 40, 50], pa.int64()),
    }
)
k, s, x, y = pc.field("k"), pc.field("s"), pc.field("x"), pc.field("y")


def placed(dataset: Dataset) -> list[list[str]]:
    """The filters of each stage, those that were moved with what they have passed."""
    plan = plan_job(dataset._node, job_id="job")
    return [
        [f"{step.expression}" + (f" through {' and '.join(step.passed)}" if step.passed else "") for step in stage.steps
         if isinstance(step, Filter)]
        for stage in plan.stages
    ]  # fmt: skip


def both(session: InterpreterSession = SESSION) -> tuple[Dataset, Dataset]:
    return session.from_table(LEFT), session.from_table(RIGHT)


def test_filter_passes_what_keeps_rows_and_columns() -> None:
    left, _ = both()
    assert placed(left.sort_by("x").filter(x > 1)) == [["(x > 1) through sort_by"], []]
    assert placed(left.repartition("k").filter(x > 1)) == [["(x > 1) through repartition"], []]
    assert placed(left.rename_columns(["a", "b", "c"]).filter(pc.field("c") > 1)) == [
        ["(x > 1) through renamed columns"]
    ]
    united = left.union(left.filter(s == "a")).filter(x > 1)
    assert placed(united)[:2] == [["(x > 1) through the union"], ['(s == "a")', "(x > 1) through the union"]]
    plain = left.select(["x", "s"]).append_column("z", x + 1).filter((x > 1) & (pc.field("z") > 1))
    assert placed(plain) == [["(x > 1)", "(z > 1)"]]


def test_filter_with_two_conditions_goes_to_both_sides_of_a_join() -> None:
    left, right = both()
    joined = left.join(right, "k", join_type="inner", right_suffix="_r").filter((x > 1) & (pc.field("s_r") == "b"))
    assert placed(joined) == [
        ["(x > 1) through the join on k"],
        ['(s == "b") through the join on k'],
        [],
    ]
    assert "filter (x > 1), moved down through the join on k" in explain_job(plan_job(joined._node, job_id="job"))


def test_filter_by_keys_goes_to_the_side_that_is_only_looked_up_too() -> None:
    left, right = both()
    renamed_right = SESSION.from_table(RIGHT.rename_columns(["key", "t", "y"]))
    moved = "through the join on k"
    for join_type in ("inner", "left outer", "left semi", "left anti"):
        found = placed(left.join(renamed_right, "k", "key", join_type=join_type).filter(k > 1))
        assert found == [[f"(k > 1) {moved}"], [f"(key > 1) {moved}"], []], join_type
    assert placed(left.join(right, "k", join_type="full outer", right_suffix="_r").filter(k > 1))[:2] == [
        [f"(k > 1) {moved}"],
        [f"(k > 1) {moved}"],
    ]


STAYS: dict[JoinType, list[pc.Expression]] = {
    "left outer": [y > 1, y.is_null(), pc.field("s_r") == "b"],
    "right outer": [x > 1, x.is_null()],
    "full outer": [x > 1, y > 1],
    "inner": [x + 1 > 1, x > y, pc.scalar(True), (x > 1) | (y > 1)],
}


@pytest.mark.parametrize(("join_type", "expression"), [(kind, each) for kind, every in STAYS.items() for each in every])
def test_filter_stays_above_a_join_where_below_it_other_rows_would_come(
    join_type: JoinType, expression: pc.Expression
) -> None:
    left, right = both()
    joined = left.join(right, "k", join_type=join_type, right_suffix="_r").filter(expression)
    assert placed(joined) == [[], [], [str(expression)]]


def test_filter_stays_above_what_changes_rows_or_columns() -> None:
    left, _ = both()
    assert placed(left.head(3).filter(x > 1))[-1] == ["(x > 1)"]
    assert placed(left.append_column("z", x * 2).filter(pc.field("z") > 1)) == [["(z > 1)"]]
    assert placed(left.sample(0.5, seed=1).filter(x > 1))[0][-1] == "(x > 1)"
    assert placed(left.map_batches(lambda batch: batch, schema=LEFT.schema).filter(x > 1)) == [["(x > 1)"]]
    grouped = left.group_by("k").aggregate([("x", "sum")])
    assert placed(grouped.filter(pc.field("x_sum") > 1))[-1] == ["(x_sum > 1)"]
    assert placed(grouped.filter(k > 1)) == [["(k > 1) through the grouping by k"], []]
    floats = left.append_column("f", x.cast(pa.float64())).group_by("f").aggregate([("x", "sum")])
    assert placed(floats.filter(pc.field("f") > 1))[-1] == ["(f > 1)"]


def test_condition_that_may_fail_overtakes_none_that_keeps_rows_from_it() -> None:
    table = pa.table({"k": [0, 1, 2], "x": [0, 1, 2]})
    other = SESSION.from_table(pa.table({"k": [1, 2], "y": [1, 1]}))
    data = SESSION.from_table(table)
    for dataset in (
        data.join(other, "k", join_type="inner").filter(pc.scalar(4) / x >= 2),
        data.join(other, "k", join_type="inner").filter(y > 0).filter(pc.scalar(4) / x >= 2),
        data.append_column("z", x * 2).filter(pc.field("z") > 0).filter(pc.scalar(4) / x >= 2),
        data.filter(x > 0).filter(pc.scalar(4) / x >= 2),
        data.filter(x > 0).sort_by("x").filter(pc.scalar(4) / x >= 2),
    ):
        assert dataset.sort_by("x").to_table()["x"].to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("expression", "answers"),
    [
        (pc.field("n") > 1, True),
        (pc.field("n") > pc.field("small"), True),
        (pc.field("d") < pc.scalar(Decimal("0.07")), True),
        (pc.field("w") == "x", True),
        (pc.field("n").isin([1, 2]) & ~pc.field("w").is_null(), True),
        (pc.field("st", "a") == 1, True),
        (pc.field("n") > 1.5, False),
        (pc.field("n") + 1 > 2, False),
        (pc.scalar(1) / pc.field("n") > 1, False),
        (pc.field("n").cast(pa.int8()) > 1, False),
        (pc.field("w").cast(pa.string()).cast(pa.int8()) > 1, False),
        (pc.field("t") > pc.field("us"), False),
    ],
)
def test_expression_that_may_fail_or_change_is_known(expression: pc.Expression, answers: bool) -> None:
    schema = pa.schema(
        [
            ("n", pa.int64()),
            ("small", pa.int8()),
            ("d", pa.decimal128(12, 2)),
            ("w", pa.dictionary(pa.int8(), pa.string())),
            ("st", pa.struct([("a", pa.int8())])),
            ("t", pa.timestamp("s")),
            ("us", pa.timestamp("us")),
        ]
    )
    assert always_answers(expression, schema) == answers


def test_expressions_are_taken_apart_and_renamed() -> None:
    nested = pc.field("st", "a") == 1
    expression = (x > 1) & nested & ((s == "a") | (x < 0))
    assert [str(part) for part in conjuncts(expression)] == ["(x > 1)", str(nested), '((s == "a") or (x < 0))']
    assert named_columns(expression) == ["x", "st", "s"]
    assert named_columns(pc.field(0) > 1) is None
    assert str(renamed(x > 1, {"x": "z"})) == "(z > 1)"
    assert renamed(nested, {"st": "ts"}).equals(pc.field("ts", "a") == 1)
    with pytest.raises(KeyError, match="no new name for"):
        renamed(x > 1, {"y": "z"})


numbers = st.one_of(st.none(), st.integers(0, 4))
words = st.sampled_from([None, "a", "b"])


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 8))
    columns = {name: [draw(numbers) for _ in range(rows)] for name in ("k", "x")}
    floats = [draw(st.sampled_from([None, 0.0, -0.0, float("nan"), 1.5])) for _ in range(rows)]
    return pa.table(
        {
            **{name: pa.array(values, pa.int64()) for name, values in columns.items()},
            "s": pa.array([draw(words) for _ in range(rows)], pa.string()),
            "f": pa.array(floats, pa.float64()),
        }
    )


def condition(draw: st.DrawFn, schema: pa.Schema) -> pc.Expression:
    field = draw(st.sampled_from(list(schema)))
    column = pc.field(field.name)
    plain: list[pc.Expression] = [column.is_null(), column.is_valid()]
    if pa.types.is_integer(field.type):
        plain += [column > 1, column <= 2, column.isin([0, 2]), column + 1 > 2, ~(column == 2)]
    elif pa.types.is_string(field.type):
        plain += [column == "a", column > "a", pc.starts_with(column, "b")]
    elif pa.types.is_floating(field.type):
        plain += [column > 0.5, column.is_nan(), column == 0.0]
    found = draw(st.sampled_from(plain))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        other = condition(draw, schema)
        found = found & other if draw(st.booleans()) else found | other
    return found


def joined(draw: st.DrawFn, data: Dataset, other: Dataset) -> Dataset:
    keys = [
        name
        for name in ("k", "s", "f")
        if name in data.schema.names and data.schema.field(name).type == other.schema.field(name).type
    ]
    if not keys:
        return data
    return data.join(
        other,
        draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2, unique=True)),
        join_type=draw(st.sampled_from(get_args(JoinType))),
        left_suffix="_l",
        right_suffix="_r",
        coalesce_keys=draw(st.booleans()),
    )


def step(draw: st.DrawFn, data: Dataset) -> Dataset:  # noqa: PLR0911 - one per kind of step
    names = data.schema.names
    match draw(st.sampled_from(["filter", "rename", "union", "sort", "repartition", "group", "add"])):
        case "filter":
            return data.filter(condition(draw, data.schema))
        case "rename":
            order = draw(st.permutations(names))
            return data.select(order).rename_columns(draw(st.permutations(order)))
        case "union":
            return data.union(data.filter(condition(draw, data.schema)))
        case "sort":
            return data.sort_by(draw(st.sampled_from(names)))
        case "repartition":
            return data.repartition(draw(st.sampled_from(names)))
        case "group":
            keys = [name for name in names if name != "count_all"]  # which two columns would be named otherwise
            by = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2, unique=True))
            return data.group_by(by).aggregate([([], "count_all")])
    column = draw(st.sampled_from(names))
    return data.append_column(f"z{len(names)}", pc.field(column).is_null())


@settings(deadline=None)
@given(st.data(), tables(), tables())
def test_answer_is_that_of_the_plan_whose_filters_stay(data: st.DataObject, one: pa.Table, two: pa.Table) -> None:
    moving, staying = InterpreterSession(), InterpreterSession(move_filters=False)
    draw = data.draw
    dataset, other = moving.from_table(one), moving.from_table(two)
    for _ in range(draw(st.integers(0, 2))):
        dataset = step(draw, dataset)
    for _ in range(draw(st.integers(1, 2))):
        dataset = joined(draw, dataset, other)
    for _ in range(draw(st.integers(0, 2))):
        dataset = step(draw, dataset)
    for _ in range(draw(st.integers(1, 2))):
        dataset = dataset.filter(condition(draw, dataset.schema))
    assert_same_rows(dataset.to_table(), Dataset(staying, dataset._node).to_table())
