"""Segments, the check of users' functions, and table steps given what they must refuse."""

from __future__ import annotations

from typing import Any

import cloudpickle
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.dataflow.execution import (
    CheckedFunction,
    MorselSegment,
    apply_table_step,
    pipeline_steps,
    schema_after,
    segments,
)
from sabot.dataflow.stage import Filter, Head, Join, MapBatches, Project, Sort
from sabot.errors import InternalError, UsageError

SCHEMA = pa.schema([("x", pa.int64()), ("y", pa.string())])
BATCH = pa.record_batch({"x": [1, 2], "y": ["a", "b"]})
KEEP = Filter(expression=pc.field("x") > 1)
DOUBLE = Project(names=("d",), expressions=(pc.field("x") * 2,))
CALL = MapBatches(function=lambda batch: batch, schema=SCHEMA, name="call")
SORT = Sort(sorting=(("x", "descending"),))


def checked(function: Any, schema: pa.Schema = SCHEMA) -> CheckedFunction:
    return CheckedFunction(function, schema, "tidy")


def test_morsel_steps_between_table_steps_are_gathered_into_segments() -> None:
    head = Head(rows=1)
    assert segments([KEEP, CALL, SORT, head, DOUBLE]) == [
        MorselSegment(steps=(KEEP, CALL)),
        SORT,
        head,
        MorselSegment(steps=(DOUBLE,)),
    ]
    assert segments([]) == []


def test_pipeline_steps_name_what_is_done() -> None:
    filtered, projected, called = pipeline_steps([KEEP, DOUBLE, CALL])
    assert filtered == ("filter", KEEP.expression)
    assert projected == ("project", ["d"], list(DOUBLE.expressions))
    assert called[0] == "call" and called[1](BATCH).equals(BATCH)


def test_the_schema_after_a_segment_is_known_without_rows() -> None:
    assert schema_after(MorselSegment(steps=(KEEP, DOUBLE)), SCHEMA) == pa.schema([("d", pa.int64())])
    assert schema_after(MorselSegment(steps=(DOUBLE, CALL)), SCHEMA) == SCHEMA


def test_a_function_may_return_none_or_no_rows() -> None:
    assert checked(lambda batch: None)(BATCH) is None
    assert checked(lambda batch: batch.slice(0, 0))(BATCH).num_rows == 0


def test_metadata_and_nullability_of_what_a_function_returns_do_not_matter() -> None:
    odd = pa.schema([pa.field("x", pa.int64(), nullable=False), pa.field("y", pa.string())], metadata={"a": "b"})
    answer = checked(lambda batch: pa.RecordBatch.from_arrays(batch.columns, schema=odd))(BATCH)
    assert answer is not None
    assert answer.schema.equals(SCHEMA, check_metadata=True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (pa.table(BATCH), r"tidy returned a pyarrow.lib.Table \(use .*\); it must return a pyarrow.RecordBatch"),
        ({"x": [1]}, "tidy returned a dict; it must return"),
        (BATCH.select(["y", "x"]), r"tidy returned columns \(y: string, x: int64\), but was to return \(x: int64, y:"),
        (BATCH.select(["x"]), r"tidy returned columns \(x: int64\), but was to return \(x: int64, y: string\)"),
        (pa.record_batch({"x": [1.0], "y": ["a"]}), r"tidy returned columns \(x: double, y: string\), but"),
    ],
    ids=["table", "dict", "order", "missing", "type"],
)
def test_a_function_that_returns_something_else_is_named(answer: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checked(lambda batch: answer)(BATCH)


def test_an_exception_of_the_user_s_passes_unchanged() -> None:
    with pytest.raises(ZeroDivisionError):
        checked(lambda batch: 1 // 0)(BATCH)


def test_a_checked_function_survives_cloudpickle() -> None:
    offset = 3
    travelled = cloudpickle.loads(cloudpickle.dumps(checked(lambda batch: batch.slice(0, offset - 2))))
    assert travelled(BATCH).to_pydict() == {"x": [1], "y": ["a"]}


def test_a_table_step_refuses_another_number_of_tables() -> None:
    join = Join(keys=("x",), right_keys=("x",), join_type="inner")
    with pytest.raises(InternalError, match="Join takes 2 tables, not 1"):
        apply_table_step(join, [pa.table(BATCH)])
    with pytest.raises(InternalError, match="Sort takes 1 tables, not 2"):
        apply_table_step(SORT, [pa.table(BATCH)] * 2)


def test_answers_of_table_steps_carry_no_metadata() -> None:
    table = pa.table(BATCH).replace_schema_metadata({"pandas": "{}"})
    for step in (SORT, Head(rows=1)):
        assert apply_table_step(step, [table]).schema.equals(SCHEMA, check_metadata=True)
