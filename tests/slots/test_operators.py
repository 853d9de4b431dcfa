"""Expressions and pipelines: the same answers as pyarrow's own, whatever the morsels."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.errors import UsageError
from sabot.slots import Morsel, MorselOperator, Pipeline, TaskSlotManager
from tests.slots.conftest import morsels_of

A, B = pc.field("a"), pc.field("b")


@pytest.fixture(scope="module")
def shared() -> Any:
    with TaskSlotManager(num_slots=2) as slots:
        yield slots


rows = st.lists(st.tuples(st.one_of(st.none(), st.integers(-5, 5)), st.one_of(st.none(), st.text(max_size=3))))


@given(values=rows, offset=st.integers(0, 3), morsel_bytes=st.integers(1, 200))
def test_filter_keeps_what_pyarrow_keeps(
    shared: TaskSlotManager, values: list[tuple[Any, Any]], offset: int, morsel_bytes: int
) -> None:
    batch = pa.record_batch(
        {"a": pa.array([a for a, _ in values], pa.int64()), "b": pa.array([b for _, b in values], pa.string())}
    ).slice(offset)
    for expression in (
        A > 0,
        (A > 0) | B.is_null(),
        A.is_null(),
        pc.scalar(True),
        pc.scalar(False),
        pc.is_in(A, pa.array([1, 2])),
    ):
        kept = MorselOperator(expression, manager=shared, morsel_bytes=morsel_bytes).process_batch(batch)
        assert kept.equals(batch.filter(expression) if batch.num_rows else batch)


@given(values=rows, morsel_bytes=st.integers(1, 200))
def test_pipeline_gives_what_its_steps_give_one_by_one(
    shared: TaskSlotManager, values: list[tuple[Any, Any]], morsel_bytes: int
) -> None:
    batch = pa.record_batch(
        {"a": pa.array([a for a, _ in values], pa.int64()), "b": pa.array([b for _, b in values], pa.string())}
    )
    pipeline = Pipeline(
        [
            ("filter", A >= -2),
            ("project", ["x", "b", "one"], [A * 2, B, pc.scalar(1)]),
            ("call", lambda part: part.append_column("n", pa.array(range(part.num_rows), pa.int32()))),
            ("filter", pc.field("x") != 4),
        ]
    )
    answer = MorselOperator(pipeline, manager=shared, morsel_bytes=morsel_bytes).process_batch(batch)
    wanted = [(a * 2, b, 1) for a, b in values if a is not None and a >= -2 and a != 2]
    assert list(zip(*(answer[name].to_pylist() for name in ("x", "b", "one")), strict=True)) == wanted


def test_boolean_expression_filters_and_another_makes_a_column(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    [kept] = manager.execute_morsels([Morsel(batch, 0, 10)], A >= 7)
    assert kept.batch is not None
    assert kept.batch.equals(batch.slice(7, 3))
    [column] = manager.execute_morsels([Morsel(batch, 0, 2)], A + B)
    assert column.batch is not None
    assert column.batch.to_pydict() == {str(A + B): [0, 2]}


def test_expression_is_bound_anew_for_another_schema(manager: TaskSlotManager) -> None:
    operator = MorselOperator(A * 2, manager=manager)
    for kind in (pa.int64(), pa.float64(), pa.int8(), pa.int64()):
        answer = operator.process_batch(pa.record_batch({"a": pa.array([1, None], kind)}))
        assert answer.column(0).to_pylist() == [2, None]


def test_call_that_gives_none_ends_the_morsel(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    def never(rows: pa.RecordBatch) -> pa.RecordBatch:
        raise AssertionError("must not be called")

    pipeline = Pipeline([("call", lambda rows: None), ("call", never)])
    assert [result.batch for result in manager.execute_morsels(morsels_of(batch, 25_000), pipeline)] == [None, None]


def test_pipeline_without_steps_gives_the_rows(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    [result] = manager.execute_morsels([Morsel(batch)], Pipeline([]))
    assert result.batch is not None
    assert result.batch.equals(batch)


def test_projection_to_no_columns_keeps_the_number_of_rows(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    [result] = manager.execute_morsels([Morsel(batch)], Pipeline([("project", [], [])]))
    assert result.batch is not None
    assert (result.batch.num_rows, result.batch.num_columns) == (50_000, 0)


def test_wrong_return_in_a_pipeline_names_the_function(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    def gives_a_number(rows: pa.RecordBatch) -> Any:
        return 3

    with pytest.raises(TypeError, match=r"gives_a_number must return .* not int"):
        manager.execute_morsels([Morsel(batch)], Pipeline([("filter", A > 1), ("call", gives_a_number)]))


def test_filter_that_is_not_boolean_says_so(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    with pytest.raises(pa.ArrowTypeError, match=r"a filter must be boolean, but .* is int64"):
        manager.execute_morsels([Morsel(batch)], Pipeline([("filter", A + 1)]))


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (("filter", "a > 1"), "is no step of a pipeline"),
        (("map", A), "is no step of a pipeline"),
        (("call", 3), "is no step of a pipeline"),
        ((), "is no step of a pipeline"),
        (("project", ["a"], []), "1 names for 0 expressions"),
        (("project", [1], [A]), "names of a projection must be str"),
        (("project", ["a"], [1]), "made of pyarrow.compute.Expression"),
    ],
)
def test_bad_step_is_a_usage_error(step: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Pipeline([step])
