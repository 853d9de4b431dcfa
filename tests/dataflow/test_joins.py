"""Joins against pyarrow's: names, order of columns, nulls, and columns that Acero's join refuses."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given

from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.stage import Join
from sabot.errors import UsageError
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.interpreter import InterpreterSession
from tests.dataflow.join_oracle import JOIN_TYPES, join_options, pyarrow_join
from tests.dataflow.tables import KEY_VALUES, every_value, join_sides, sessions_arguments

LEFT = pa.table({"v": [10, 20, 30, 40], "k": [1, None, 1, 2], "j": ["a", "b", None, "a"], "w": [1.0, 2.0, 3.0, 4.0]})
RIGHT = pa.table({"k": [1, None, 3, 1], "w": ["p", "q", "r", "s"], "j": ["a", "b", None, "a"]})
DICTIONARY = pa.dictionary(pa.int8(), pa.string())
WIDE_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
SUFFIXES = {"left_suffix": "_l", "right_suffix": "_r"}


def joined(left: pa.Table, right: pa.Table, *arguments: Any, **options: Any) -> tuple[pa.Table, pa.Table]:
    """Our answer and pyarrow's."""
    session = InterpreterSession()
    answer = session.from_table(left).join(session.from_table(right), *arguments, **options).to_table()
    return answer, pyarrow_join(left, right, *arguments, **options)


@pytest.mark.parametrize("coalesce_keys", [True, False])
@pytest.mark.parametrize("join_type", JOIN_TYPES)
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
@pytest.mark.parametrize("join_type", JOIN_TYPES)
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
@pytest.mark.parametrize("join_type", JOIN_TYPES)
def test_columns_that_acero_refuses_are_carried_along(join_type: str, coalesce_keys: bool) -> None:
    left = pa.table({"l": [[1], None, [], [2, 3]], "k": [1, 2, None, 1], "n": pa.nulls(4)})
    right = pa.table({"k": [1, 1, 5], "s": [{"a": 1}, None, {"a": 3}], "l": pa.array([[("x", 1)], [], None], MAP)})
    assert_same_rows(*joined(left, right, "k", join_type=join_type, coalesce_keys=coalesce_keys, **SUFFIXES))


@pytest.mark.parametrize("join_type", JOIN_TYPES)
def test_columns_named_like_row_numbers_are_carried_along(join_type: str) -> None:
    left = pa.table({"row left": [[1], [2], None], "k": [1, 2, 3], "row right": [5, 6, 7], "_row": [1, 2, 3]})
    right = pa.table({"k": [2, 3, 4], "row left 0": [6, 1, 2]})
    close = pc.field("row right") == pc.field("row left 0")
    assert_same_rows(*joined(left, right, "k", join_type=join_type, filter_expression=close))


@pytest.mark.parametrize("coalesce_keys", [True, False])
@pytest.mark.parametrize("join_type", JOIN_TYPES)
def test_a_filter_says_which_of_the_rows_with_equal_keys_match(join_type: str, coalesce_keys: bool) -> None:
    right = RIGHT.append_column("x", pa.array([15, 20, 30, None])).rename_columns({"w": "u"})
    for expression in (
        pc.field("v") < pc.field("x"),
        (pc.field("u") != "p") | (pc.field("w") > 2.0),
        pc.is_null(pc.field("x")),
        pc.scalar(False),
    ):
        options = {"join_type": join_type, "coalesce_keys": coalesce_keys, "filter_expression": expression}
        assert_same_rows(*joined(LEFT, right, "k", **options, **SUFFIXES))
        nested = [LEFT.append_column("l", pa.array([[1], [], None, [2]])), right.append_column("n", pa.nulls(4))]
        assert_same_rows(*joined(*nested, "k", **options, **SUFFIXES))


@pytest.mark.parametrize("join_type", JOIN_TYPES)
def test_what_is_not_asked_for_is_not_needed_for_the_answer(join_type: str) -> None:
    right = RIGHT.append_column("x", pa.array([15, 20, 30, None])).rename_columns({"w": "u"})
    session = InterpreterSession()
    options: Any = {"join_type": join_type, "filter_expression": pc.field("v") < pc.field("x"), **SUFFIXES}
    answer = session.from_table(LEFT).join(session.from_table(right), "k", **options)
    expected = LEFT.join(right, "k", **options, use_threads=False)
    for name in expected.column_names:
        assert_same_rows(answer.select([name]).to_table(), expected.select([name]))


@pytest.mark.parametrize("join_type", ["left semi", "left anti", "right semi", "right anti"])
def test_only_keys_cross_the_wire_from_a_side_that_gives_no_columns(join_type: str) -> None:
    session = InterpreterSession()
    _ = session.from_table(LEFT).join(session.from_table(RIGHT), ["k", "j"], join_type=join_type).to_table()
    left, right, _ = session.plans[-1].stages
    unseen = right if join_type.startswith("left") else left
    assert set(unseen.schema.names) == {"k", "j"}


@pytest.mark.parametrize("join_type", JOIN_TYPES)
@pytest.mark.parametrize("kinds", [(DICTIONARY, pa.string()), (pa.string(), DICTIONARY), (DICTIONARY, WIDE_DICTIONARY)])
def test_dictionaries_join_with_their_values_as_in_pyarrow(kinds: tuple[pa.DataType, ...], join_type: str) -> None:
    left, right = (
        pa.table({"k": pa.array(["b", "a", None, "c"], kinds[0]), "v": [1, 2, 3, 4]}),
        pa.table({"w": [1, 2, 3], "k": pa.array(["c", None, "b"], kinds[1])}),
    )
    if kinds[1] is WIDE_DICTIONARY and join_type == "full outer":
        with pytest.raises(UsageError, match=r"cannot become one column .* or pass coalesce_keys=False"):
            joined(left, right, "k", join_type=join_type)
    else:
        assert_same_rows(*joined(left, right, "k", join_type=join_type))


@pytest.mark.parametrize("join_type", JOIN_TYPES)
def test_a_key_paired_twice_answers_as_pyarrow(join_type: str) -> None:
    right = pa.table({"a": [1, 1, None], "b": [1, 2, 3], "c": [7, 8, 9]})
    assert_same_rows(*joined(LEFT, right, ["k", "k"], ["a", "b"], join_type=join_type, **SUFFIXES))


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


@pytest.mark.parametrize("join_type", JOIN_TYPES)
@pytest.mark.parametrize("kind", KEY_VALUES, ids=str)
def test_every_type_of_key_joins_as_in_pyarrow(kind: pa.DataType, join_type: str) -> None:
    left = every_value(kind)
    right = left.slice(1, 4).rename_columns({"i": "j"}).select(["j", "k"])
    assert_same_rows(*joined(left, right, "k", join_type=join_type))


@given(join_sides(), sessions_arguments(), join_options())
def test_any_two_tables_join_as_in_pyarrow(
    tables: tuple[pa.Table, pa.Table], arguments: dict[str, int], options: dict[str, Any]
) -> None:
    left, right = tables
    session = InterpreterSession(**arguments)
    answer = session.from_table(left).join(session.from_table(right), **options)
    assert_same_rows(answer.to_table(), pyarrow_join(left, right, **options))


MAP = pa.map_(pa.string(), pa.int64())
