"""Sorts by ranges: planned where there are many rows and their keys have ranges, and stable like pyarrow's."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.dataflow import sorting
from sabot.dataflow.dataset import Dataset
from sabot.dataflow.plan import ScanNode
from sabot.dataflow.planner import plan_job
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle
from sabot.dataflow.stage import HashShuffle, Output, ResultOutput
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.files import source_file
from tests.dataflow.interpreter import InterpreterSession
from tests.dataflow.tables import EVERY_KEY, every_value, sessions_arguments, tables

SCHEMA = pa.schema([("k", pa.int64()), ("x", pa.float64()), ("half", pa.float16()), ("l", pa.list_(pa.int8()))])
BY_K = (("k", "ascending"),)


@pytest.fixture(scope="module", autouse=True)
def every_row_is_many() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "SORTED_BY_ONE_BYTES_MAX", 1)
        yield


def files(*sizes: int) -> Dataset:
    sources = tuple(source_file(f"{i}.parquet", rows=(10,), sizes=(size,)) for i, size in enumerate(sizes))
    return Dataset(InterpreterSession(), ScanNode(format="parquet", files=sources, file_schema=SCHEMA))


def outputs(dataset: Dataset) -> list[Output]:
    return [stage.output for stage in plan_job(dataset._node, job_id="job").stages]


def test_many_rows_are_kept_sampled_cut_into_ranges_and_sorted_by_several_tasks() -> None:
    assert outputs(files(500, 500).map_batches(lambda batch: batch, schema=SCHEMA).sort_by("k")) == [
        HomeShuffle(sample_keys=("k",)),
        RangeShuffle(sorting=BY_K, sampled_by=(0,)),
        ResultOutput(),
    ]


def test_few_rows_are_sorted_by_one_task() -> None:
    assert outputs(files(1).filter(pc.field("k") > 1).sort_by("k")) == [HashShuffle(keys=()), ResultOutput()]


def test_persisted_rows_are_as_many_as_they_are() -> None:
    session = InterpreterSession()
    for rows, outputs_expected in ((1, 1), (1000, 3)):
        persisted = session.from_table(pa.table({"x": range(rows), "s": ["text"] * rows})).persist()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sorting, "SORTED_BY_ONE_BYTES_MAX", 4096)
            plan = plan_job(persisted.sort_by("x")._node, job_id="job")
        assert sum(isinstance(stage.output, HomeShuffle | RangeShuffle | ResultOutput) for stage in plan.stages) == (
            outputs_expected
        )


def test_a_key_that_has_no_ranges_is_sorted_by_one_task() -> None:
    half = files(500).filter(pc.field("k") > 1).map_batches(lambda batch: batch, schema=SCHEMA)
    assert not sorting.has_ranges(pa.float16())
    assert sorting.has_ranges(pa.null())
    with pytest.raises(Exception, match="sort_by"):
        half.sort_by("l")


def test_a_column_named_twice_cuts_ranges_once() -> None:
    planned = files(500).map_batches(lambda batch: batch, schema=SCHEMA)
    (_, ranged, _) = outputs(planned.sort_by([("k", "descending"), ("x", "ascending"), ("k", "ascending")]))
    assert isinstance(ranged, RangeShuffle) and ranged.keys == ("k", "x")


def test_the_first_of_sorted_rows_are_found_without_ranges() -> None:
    assert outputs(files(500).sort_by("k").head(3)) == [HashShuffle(keys=()), ResultOutput()]


def test_a_sort_by_ranges_reads_like_this() -> None:
    planned = files(500, 500).map_batches(lambda batch: batch, schema=SCHEMA).sort_by([("k", "descending", "at_start")])
    text = planned.explain()
    assert "to    shuffle into a partition for each task, which stays where it is: k is sampled first" in text
    assert (
        "to    shuffle by ranges of k descending at_start, cut by the sample of stage 0: "
        "each is put in order by a task" in text
    )


def decoded(table: pa.Table) -> pa.Table:
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(dict(zip(table.column_names, columns, strict=True)))


def sort_keys() -> st.SearchStrategy[list[tuple[str, str, str]]]:
    key = st.tuples(
        st.sampled_from(["k", "h", "n"]),
        st.sampled_from(["ascending", "descending"]),
        st.sampled_from(["at_start", "at_end"]),
    )
    return st.lists(key, min_size=1, max_size=3, unique_by=lambda one: one[0])


@given(tables(), sessions_arguments(), sort_keys())
def test_equal_rows_keep_their_order(
    table: pa.Table, arguments: dict[str, int], keys: list[tuple[str, str, str]]
) -> None:
    rows = pc.sort_indices(decoded(table.select(["k", "h", "n"])), sort_keys=keys)
    answer = InterpreterSession(**arguments).from_table(table).sort_by(keys).to_table()
    assert_same_rows(answer, table.take(rows), ordered=True)


@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("kind", EVERY_KEY, ids=str)
def test_every_type_of_key_has_ranges(kind: pa.DataType, order: str) -> None:
    table = every_value(kind)
    answer = InterpreterSession().from_table(table).sort_by([("k", order)]).to_table()
    rows = pc.sort_indices(decoded(table.select(["k"])), sort_keys=[("k", order)])
    assert_same_rows(answer, table.take(rows), ordered=True)


def test_what_follows_a_sort_finds_the_rows_in_order() -> None:
    table = pa.table({"k": [i % 3 for i in range(30)], "x": [(i * 7) % 30 for i in range(30)]})
    ordered = InterpreterSession().from_table(table).sort_by("x")
    firsts = ordered.group_by("k").aggregate([("x", "first"), ("x", "list")]).to_table()
    assert_same_rows(
        firsts, table.sort_by("x").group_by("k", use_threads=False).aggregate([("x", "first"), ("x", "list")])
    )
    even = ordered.filter(pc.field("x") > 3).head(5).to_table()
    assert even["x"].to_pylist() == [4, 5, 6, 7, 8]
