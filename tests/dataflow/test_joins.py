"""Joins against pyarrow's: names, order of columns, nulls, and columns that Acero's join refuses."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.stage import Join
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.interpreter import InterpreterSession
from tests.dataflow.tables import KEY_VALUES, PAYLOADS, columns, every_value, sessions_arguments

LEFT = pa.table({"v": [10, 20, 30, 40], "k": [1, None, 1, 2], "j": ["a", "b", None, "a"], "w": [1.0, 2.0, 3.0, 4.0]})
RIGHT = pa.table({"k": [1, None, 3, 1], "w": ["p", "q", "r", "s"], "j": ["a", "b", None, "a"]})
SUFFIXES = {"left_suffix": "_l", "right_suffix": "_r"}


def joined(left: pa.Table, right: pa.Table, *arguments: Any, **options: Any) -> tuple[pa.Table, pa.Table]:
    """Our answer and pyarrow's."""
    session = InterpreterSession()
    answer = session.from_table(left).join(session.from_table(right), *arguments, **options).to_table()
    return answer, left.join(right, *arguments, **options, use_threads=False)


@pytest.mark.parametrize("coalesce_keys", [True, False])
@pytest.mark.parametrize("join_type", ["inner", "left outer"])
@pytest.mark.parametrize(
    "keys", [("k",), ("j",), (["k", "j"],), (["j", "k"],), ("k", "k")], ids=lambda keys: "-".join(map(str, keys))
)
def test_join_answers_as_pyarrow(keys: tuple[Any, ...], join_type: str, coalesce_keys: bool) -> None:
    assert_same_rows(*joined(LEFT, RIGHT, *keys, join_type=join_type, coalesce_keys=coalesce_keys, **SUFFIXES))


@pytest.mark.parametrize("coalesce_keys", [True, False])
def test_keys_of_different_names_answer_as_pyarrow(coalesce_keys: bool) -> None:
    right = RIGHT.rename_columns(["key", "w", "v"])
    assert_same_rows(*joined(LEFT, right, "k", "key", coalesce_keys=coalesce_keys, **SUFFIXES))
    crossed = RIGHT.rename_columns(["j", "w", "k"])
    assert_same_rows(*joined(LEFT, crossed, ["k", "j"], ["j", "k"], coalesce_keys=coalesce_keys, **SUFFIXES))


def test_left_outer_is_the_default_as_in_pyarrow() -> None:
    answer, expected = joined(LEFT, RIGHT, "k", right_suffix="_r")
    assert_same_rows(answer, expected)
    assert answer.num_rows == 6


def test_columns_of_the_same_name_without_suffixes_answer_as_pyarrow() -> None:
    answer, expected = joined(LEFT, RIGHT, "k", join_type="inner")
    assert answer.column_names == expected.column_names == ["v", "k", "j", "w", "w", "j"]
    assert_same_rows(answer, expected)


def test_null_keys_match_nothing() -> None:
    answer, _ = joined(LEFT, RIGHT, "k", join_type="inner", **SUFFIXES)
    assert None not in answer["k"].to_pylist()


@pytest.mark.parametrize("empty", ["left", "right", "both"])
@pytest.mark.parametrize("join_type", ["inner", "left outer"])
def test_empty_sides_answer_as_pyarrow(join_type: str, empty: str) -> None:
    left = LEFT.slice(0, 0) if empty in ("left", "both") else LEFT
    right = RIGHT.slice(0, 0) if empty in ("right", "both") else RIGHT
    assert_same_rows(*joined(left, right, "k", join_type=join_type, **SUFFIXES))


def test_a_dataset_joins_with_itself() -> None:
    session = InterpreterSession()
    dataset = session.from_table(LEFT).filter(pc.field("v") > 10)
    answer = dataset.join(dataset, "k", join_type="inner", right_suffix="_r").to_table()
    rows = LEFT.filter(pc.field("v") > 10)
    assert_same_rows(answer, rows.join(rows, "k", join_type="inner", right_suffix="_r"))


@pytest.mark.parametrize("coalesce_keys", [True, False])
@pytest.mark.parametrize("join_type", ["inner", "left outer"])
def test_columns_that_acero_refuses_are_carried_along(join_type: Any, coalesce_keys: bool) -> None:
    left = pa.table({"l": [[1], None, [], [2, 3]], "k": [1, 2, None, 1], "n": pa.nulls(4)})
    right = pa.table({"k": [1, 1, 5], "s": [{"a": 1}, None, {"a": 3}], "l": pa.array([[("x", 1)], [], None], MAP)})
    session = InterpreterSession()
    answer = session.from_table(left).join(
        session.from_table(right), "k", join_type=join_type, coalesce_keys=coalesce_keys, **SUFFIXES
    )
    plain_left, plain_right = _without_refused(left), _without_refused(right)
    expected = plain_left.join(
        plain_right, "k", join_type=join_type, coalesce_keys=coalesce_keys, **SUFFIXES, use_threads=False
    )
    types = [*left.schema.types, *right.schema.types]
    if coalesce_keys:
        del types[left.num_columns]
    columns_back = []
    for column, kind in zip(expected.columns, types, strict=True):
        columns_back.append(
            pa.array([None if v is None else _VALUES[v] if kind != pa.int64() else v for v in column.to_pylist()], kind)
        )
    assert_same_rows(answer.to_table(), pa.table(columns_back, names=expected.column_names))


def test_dictionaries_with_other_values_on_each_side_join_by_value() -> None:
    left = pa.table({"k": pa.array(["a", "b", None, "b"]).dictionary_encode(), "v": [1, 2, 3, 4]})
    right = pa.table({"k": pa.array(["c", "b"]).dictionary_encode(), "d": pa.array(["x", "y"]).dictionary_encode()})
    answer, _ = joined(left, right, "k")
    assert answer.schema.field("k").type == left.schema.field("k").type
    assert answer.schema.field("d").type == right.schema.field("d").type
    rows = sorted(answer.to_pylist(), key=lambda row: int(row["v"]))
    assert [(row["v"], row["k"], row["d"]) for row in rows] == [
        (1, "a", None),
        (2, "b", "y"),
        (3, None, None),
        (4, "b", "y"),
    ]


def test_dictionaries_that_differ_between_chunks_join_by_value() -> None:
    chunks = pa.chunked_array([pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "c"]).dictionary_encode()])
    left = pa.table({"k": chunks, "v": [1, 2, 3, 4]})
    right = pa.table({"k": pa.array(["c", "b"]).dictionary_encode(), "w": [1, 2]})
    step = Join(keys=("k",), right_keys=("k",), join_type="inner")
    assert sorted(apply_table_step(step, [left, right])["v"].to_pylist()) == [2, 3, 4]


@pytest.mark.parametrize("join_type", ["inner", "left outer"])
@pytest.mark.parametrize("kind", KEY_VALUES, ids=str)
def test_every_type_of_key_joins_as_in_pyarrow(kind: pa.DataType, join_type: str) -> None:
    left = every_value(kind)
    right = left.slice(1, 4).rename_columns({"i": "j"}).select(["j", "k"])
    assert_same_rows(*joined(left, right, "k", join_type=join_type))


@st.composite
def sides(draw: st.DrawFn) -> tuple[pa.Table, pa.Table]:
    kind = draw(st.sampled_from(list(KEY_VALUES)))
    counts = draw(st.tuples(st.integers(0, 8), st.integers(0, 8)))
    keys = [draw(columns({kind: KEY_VALUES[kind]}, count)) for count in counts]
    left = pa.table({"i": range(counts[0]), "k": keys[0], "p": draw(columns(PAYLOADS, counts[0]))})
    right = pa.table({"p": draw(columns(PAYLOADS, counts[1])), "k": keys[1], "j": range(counts[1])})
    return left.cast(left.schema.set(0, pa.field("i", pa.int64()))), right.cast(
        right.schema.set(2, pa.field("j", pa.int64()))
    )


@given(sides(), sessions_arguments(), st.sampled_from(["inner", "left outer"]))
def test_any_two_tables_join_as_pyarrow_joins_their_keys(
    tables: tuple[pa.Table, pa.Table], arguments: dict[str, int], join_type: str
) -> None:
    left, right = tables
    session = InterpreterSession(**arguments)
    answer = session.from_table(left).join(session.from_table(right), "k", join_type=join_type, right_suffix="_r")
    pairs = left.select(["i", "k"]).join(right.select(["k", "j"]), "k", join_type=join_type, use_threads=False)
    expected = pa.table(
        {
            "i": pairs["i"],
            "k": left["k"].take(pairs["i"]),
            "p": left["p"].take(pairs["i"]),
            "p_r": right["p"].take(pairs["j"]),
            "j": pairs["j"],
        }
    )
    assert_same_rows(answer.to_table(), expected)


MAP = pa.map_(pa.string(), pa.int64())
_VALUES: dict[str, Any] = {}


def _without_refused(table: pa.Table) -> pa.Table:
    """The table with words in place of the values that Acero's join refuses; `_VALUES` has what they stand for."""
    columns_kept = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name == "k":
            columns_kept.append(column)
            continue
        words = [None if value is None else repr(value) for value in column.to_pylist()]
        _VALUES.update(zip(words, column.to_pylist(), strict=True))
        columns_kept.append(pa.chunked_array([pa.array(words, pa.string())]))
    return pa.table(columns_kept, names=table.column_names)
