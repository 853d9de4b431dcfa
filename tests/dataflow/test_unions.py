"""Unions and different rows, against pyarrow's concat_tables and group_by."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given

from sabot.dataflow.dataset import Dataset
from sabot.dataflow.stage import RoundRobinShuffle, ShuffleInput
from sabot.errors import UsageError
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.interpreter import InterpreterSession
from tests.dataflow.tables import sessions_arguments, tables

LEFT = pa.table({"k": [1, 2, 2, None], "x": [1.0, 2.0, 3.0, None], "s": ["a", None, "b", "c"]})
RIGHT = pa.table({"k": [2, None, 5], "x": [7.0, 8.0, None], "s": ["a", "z", None]})


def union(session: InterpreterSession, *tables: pa.Table, **arguments: Any) -> Dataset:
    first, *others = (session.from_table(table) for table in tables)
    return first.union(*others, **arguments)


def test_a_union_keeps_every_row_as_often_as_it_is_there() -> None:
    session = InterpreterSession()
    assert_same_rows(union(session, LEFT, RIGHT, LEFT).to_table(), pa.concat_tables([LEFT, RIGHT, LEFT]))
    dataset = session.from_table(LEFT)
    assert_same_rows(dataset.union(dataset).to_table(), pa.concat_tables([LEFT, LEFT]))


def test_a_union_of_nothing_else_is_the_dataset() -> None:
    session = InterpreterSession()
    assert_same_rows(union(session, LEFT).to_table(), LEFT)
    assert len(session.plans[-1].stages) == 1


def test_a_grouping_takes_the_parts_of_a_union_as_they_come() -> None:
    session = InterpreterSession()
    dataset = union(session, LEFT, RIGHT).filter(pc.field("x") > 1).append_column("y", pc.field("x") * 2)
    aggregations = [("y", "sum"), ("s", "list"), ([], "count_all")]
    answer = dataset.group_by("k").aggregate(aggregations[::2]).to_table()
    both = pa.concat_tables([LEFT, RIGHT])
    expected = both.filter(pc.field("x") > 1)
    expected = expected.append_column("y", pc.multiply(expected["x"], 2))
    assert_same_rows(answer, expected.group_by("k").aggregate(aggregations[::2]))
    stages = session.plans[-1].stages
    assert len(stages) == 3
    assert stages[-1].input == ShuffleInput(stage_ids=(0, 1))


@pytest.mark.parametrize("swapped", [False, True])
def test_a_union_joins_on_either_side(swapped: bool) -> None:
    session = InterpreterSession()
    both, other = union(session, LEFT, RIGHT), session.from_table(RIGHT)
    expected = pa.concat_tables([LEFT, RIGHT])
    arguments: dict[str, Any] = {"join_type": "inner", "left_suffix": "_l", "right_suffix": "_r"}
    if swapped:
        assert_same_rows(other.join(both, "k", **arguments).to_table(), RIGHT.join(expected, "k", **arguments))
    else:
        assert_same_rows(both.join(other, "k", **arguments).to_table(), expected.join(RIGHT, "k", **arguments))
    assert any(isinstance(stage.output, RoundRobinShuffle) for stage in session.plans[-1].stages)


def test_a_union_is_sorted_cut_and_put_together_again() -> None:
    session = InterpreterSession()
    first = union(session, LEFT, RIGHT).sort_by([("x", "descending")]).head(3)
    expected = pa.concat_tables([LEFT, RIGHT]).sort_by([("x", "descending")]).slice(0, 3)
    assert_same_rows(first.to_table(), expected, ordered=True)
    again = first.union(session.from_table(LEFT)).union(session.from_table(RIGHT))
    assert_same_rows(again.to_table(), pa.concat_tables([expected, LEFT, RIGHT]))
    assert union(session, LEFT, RIGHT).head(2).to_table().num_rows == 2
    assert union(session, LEFT, RIGHT).group_by([]).aggregate([("x", "count")]).to_table().to_pylist() == [
        {"x_count": 5}
    ]


@pytest.mark.parametrize(
    ("promote_options", "other"),
    [
        ("default", pa.table({"s": ["q"], "n": [3]})),
        ("default", pa.table({"k": pa.nulls(2), "x": [1.0, 2.0], "s": ["q", "r"]})),
        ("permissive", pa.table({"k": pa.array([1], pa.int8()), "x": pa.array([1], pa.float32()), "s": ["q"]})),
        ("permissive", pa.table({"x": [1], "s": pa.array(["q"], pa.large_string())})),
    ],
    ids=["missing columns", "null columns", "narrow types", "other types"],
)
def test_schemas_are_brought_together_as_pyarrow_does(promote_options: str, other: pa.Table) -> None:
    session = InterpreterSession()
    answer = union(session, LEFT, other, promote_options=promote_options).to_table()
    assert_same_rows(answer, pa.concat_tables([LEFT, other], promote_options=promote_options))
    with pytest.raises(UsageError, match="do not go together"):
        union(session, LEFT, other)


def test_what_cannot_be_united_is_said() -> None:
    session = InterpreterSession()
    with pytest.raises(UsageError, match="do not go together"):
        union(session, LEFT, pa.table({"k": ["text"]}), promote_options="permissive")
    with pytest.raises(UsageError, match="promote_options is one of"):
        union(session, LEFT, RIGHT, promote_options="all")
    with pytest.raises(UsageError, match="takes Datasets, not Table"):
        session.from_table(LEFT).union(LEFT)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="different sessions"):
        session.from_table(LEFT).union(InterpreterSession().from_table(LEFT))


def test_columns_that_nobody_needs_of_a_union_are_not_sent() -> None:
    session = InterpreterSession()
    union(session, LEFT, RIGHT).group_by("k").aggregate([("x", "sum")]).to_table()
    assert all("s" not in stage.schema.names for stage in session.plans[-1].stages)


@given(tables(), tables(), sessions_arguments())
def test_any_two_tables_unite_as_in_pyarrow(left: pa.Table, right: pa.Table, arguments: dict[str, int]) -> None:
    right = right.select(["i", "p"]).rename_columns(["i", "q"])
    session = InterpreterSession(**arguments)
    answer = union(session, left, right, promote_options="default").to_table()
    # Whether null or no dictionary entry, a missing column reads as null.
    assert sorted(map(repr, answer.to_pylist())) == sorted(
        map(repr, pa.concat_tables([left, right], promote_options="default").to_pylist())
    )


def test_unique_gives_each_different_row_once() -> None:
    both = pa.concat_tables([LEFT, LEFT, RIGHT])
    dataset = InterpreterSession().from_table(both)
    assert_same_rows(dataset.unique("k").to_table(), pa.table({"k": both["k"].unique()}))
    assert_same_rows(dataset.unique(["s", "k"]).to_table(), both.group_by(["s", "k"]).aggregate([]))
    assert_same_rows(dataset.unique().to_table(), both.group_by(["k", "x", "s"]).aggregate([]))
    with pytest.raises(UsageError, match="no column 'kk'"):
        dataset.unique("kk")


def test_a_union_reads_like_this() -> None:
    text = union(InterpreterSession(), LEFT, RIGHT).explain()
    assert "from  the shuffle of stage 0, then the shuffle of stage 1" in text
    assert "shuffle in turn into partitions: rows of a union are brought together" in text
