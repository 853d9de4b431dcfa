"""Which columns are read and sent."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.dataflow.dataset import Dataset
from sabot.dataflow.expressions import columns_used
from sabot.dataflow.plan import ScanNode
from sabot.dataflow.planner import plan_job
from sabot.dataflow.stage import JobPlan, ScanInput
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.files import csv_dataset, parquet_dataset, source_file
from tests.dataflow.interpreter import InterpreterSession

SESSION = InterpreterSession()
SCHEMA = pa.schema(
    [("k", pa.int64()), ("s", pa.string()), ("x", pa.int64()), ("flag", pa.bool_()), ("y", pa.float64())]
)
ROWS = pa.table(
    [[1, 2, 1, 3], ["a", None, "c", "d"], [1, 2, 3, None], [True, False, None, True], [0.5, 1.5, 2.5, 3.5]],
    schema=SCHEMA,
)


def scan(schema: pa.Schema = SCHEMA) -> Dataset:
    files = (source_file("f.parquet", rows=(1,), sizes=(1,)),)
    return Dataset(SESSION, ScanNode(format="parquet", files=files, file_schema=schema))


def plan_of(dataset: Dataset) -> JobPlan:
    return plan_job(dataset._node, job_id="job")


def read(dataset: Dataset) -> list[tuple[str, ...] | None]:
    """The columns that each scan of the plan reads."""
    inputs = [stage.input for stage in plan_of(dataset).stages]
    return [source.columns for source in inputs if isinstance(source, ScanInput)]


def sent(dataset: Dataset) -> list[list[str]]:
    """The columns that each stage gives."""
    return [stage.schema.names for stage in plan_of(dataset).stages]


def test_all_columns_are_read_where_all_are_asked_for() -> None:
    assert read(scan()) == [None]
    assert read(scan().filter(pc.field("x") > 1)) == [None]
    assert read(scan().sort_by("x").head(1)) == [None]


def test_selected_columns_and_those_of_filters_are_read() -> None:
    dataset = scan().filter(pc.field("x") > 1).select(["y", "k"])
    assert read(dataset) == [("k", "x", "y")]
    assert sent(dataset) == [["y", "k"]]


def test_columns_are_read_in_the_order_of_the_file() -> None:
    assert read(scan().select(["y", "s"])) == [("s", "y")]


def test_computed_columns_that_nobody_asks_for_are_not_computed() -> None:
    dataset = scan().append_column("z", pc.field("x") + pc.field("y")).append_column("w", pc.field("k") * 2)
    assert read(dataset.select(["w"])) == [("k",)]
    assert read(dataset.select(["z"])) == [("x", "y")]


def test_grouping_reads_keys_and_targets_only() -> None:
    assert read(scan().group_by("k").aggregate([("x", "sum"), ("y", "mean")])) == [("k", "x", "y")]


def test_columns_of_filters_do_not_cross_the_shuffle() -> None:
    dataset = scan().filter(pc.field("flag")).group_by("k").aggregate([("x", "count_distinct")])
    assert sent(dataset) == [["k", "x"], ["k", "x_count_distinct"]]


def test_counting_reads_the_narrowest_column() -> None:
    assert read(scan().group_by([]).aggregate([([], "count_all")])) == [("flag",)]
    strings = scan(pa.schema([("a", pa.string()), ("b", pa.list_(pa.int8()))]))
    assert read(strings.group_by([]).aggregate([([], "count_all")])) == [("a",)]


def test_a_join_reads_and_sends_keys_and_what_is_asked_for() -> None:
    right = scan().rename_columns(["k", "s_r", "x_r", "flag_r", "y_r"])
    dataset = scan().join(right, "k").select(["y", "s_r"])
    assert read(dataset) == [("k", "y"), ("k", "s")]
    assert sent(dataset) == [["k", "y"], ["k", "s_r"], ["y", "s_r"]]


def test_a_join_keeps_on_both_sides_what_suffixes_depend_on() -> None:
    dataset = scan().join(scan(), "k", left_suffix="_l", right_suffix="_r").select(["x_r", "k"])
    assert read(dataset) == [("k", "x"), ("k", "x")]


def test_a_user_function_sees_every_column_that_it_would_see_without_pruning() -> None:
    dataset = scan().map_batches(lambda batch: batch).select(["k"])
    assert read(dataset) == [None]
    after = scan().select(["k", "x"]).map_batches(lambda batch: batch).select(["k"])
    assert read(after) == [("k", "x")]


def test_a_user_function_is_called_once_to_learn_its_columns() -> None:
    calls = []
    dataset = scan().map_batches(lambda batch: calls.append(1) or batch).filter(pc.field("x") > 1).select(["k"])
    plan_of(dataset)
    assert calls == [1]


def test_sorting_and_repartitioning_keep_their_keys_until_they_are_done() -> None:
    assert sent(scan().sort_by("x").select(["y"])) == [["x", "y"], ["y"]]
    assert sent(scan().repartition(["x"]).select(["y"])) == [["x", "y"], ["y"]]


def test_tables_with_repeated_names_are_left_as_they_are() -> None:
    repeated = InterpreterSession().from_table(ROWS).append_column("x", pc.field("k"))
    assert_same_rows(repeated.select(["k", "y"]).to_table(), ROWS.select(["k", "y"]))
    assert_same_rows(
        repeated.sort_by("k").head(2).select(["k"]).to_table(), ROWS.sort_by("k").slice(0, 2).select(["k"])
    )


@pytest.mark.parametrize(
    ("expression", "used"),
    [
        (pc.field("x") > 1, {"x"}),
        (pc.field("xy") > pc.field("x"), {"x", "xy"}),
        (pc.field("a b") == "x", {"a b"}),
        (pc.is_null(pc.field("is_null")), {"is_null"}),
        (pc.field("s", "x") == 1, {"s"}),
        (pc.scalar(1), set()),
        (pc.field("x").isin([1, 2]), {"x"}),
        (pc.if_else(pc.field("xy") > 0, pc.field("a b"), "z"), {"xy", "a b"}),
    ],
    ids=str,
)
def test_the_columns_of_an_expression_are_found(expression: pc.Expression, used: set[str]) -> None:
    schema = pa.schema(
        [
            ("x", pa.int64()),
            ("xy", pa.int64()),
            ("a b", pa.string()),
            ("is_null", pa.int64()),
            ("s", pa.struct([("x", pa.int64())])),
        ]
    )
    assert columns_used(expression, schema) == used


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_pruned_scans_of_real_files_answer_as_pyarrow(tmp_path: Path, kind: str) -> None:
    session = InterpreterSession()
    if kind == "parquet":
        dataset = parquet_dataset(session, tmp_path, ROWS, files=2, group_rows=1)
    else:
        dataset = csv_dataset(session, tmp_path, ROWS, files=2)
    answer = dataset.filter(pc.field("x") > 0).group_by("k").aggregate([("y", "mean"), ([], "count_all")]).to_table()
    expected = ROWS.filter(pc.field("x") > 0).group_by("k").aggregate([("y", "mean"), ([], "count_all")])
    assert_same_rows(answer, expected)
    assert dataset.count_rows() == 4
