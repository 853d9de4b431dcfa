"""Rows counted without a job, where footers and tables' lengths tell."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.dataflow.dataset import Dataset
from sabot.dataflow.plan import ScanNode
from sabot.dataflow.stage import SourceFile
from tests.dataflow.interpreter import InterpreterSession

TABLE = pa.table({"x": [3, 1, None, 2], "y": ["a", "b", "a", None]})


def from_files(session: InterpreterSession, format: Any = "parquet") -> Dataset:
    files = tuple(
        SourceFile(path=f"/{rows}", size_bytes=1, modified_ns=0, row_group_rows=rows, row_group_bytes=rows)
        for rows in ((100, 20), (), (3,))
    )
    return Dataset(session, ScanNode(format=format, files=files, file_schema=TABLE.schema))


@pytest.mark.parametrize(
    ("dataset_of", "rows"),
    [
        (lambda t, f: t, 4),
        (lambda t, f: f, 123),
        (lambda t, f: f.select(["y"]).append_column("z", pc.field("y")).rename_columns(["a", "b"]), 123),
        (lambda t, f: f.sort_by("x").head(50), 50),
        (lambda t, f: t.head(50).repartition("x", 3), 4),
        (lambda t, f: t.union(f, f), 250),
        (lambda t, f: f.filter(pc.field("x") > 1).group_by([]).aggregate([("x", "sum")]), 1),
    ],
    ids=["table", "files", "projections", "head of a sort", "repartition", "union", "aggregate of all"],
)
def test_rows_that_metadata_tell_are_counted_without_a_job(dataset_of: Any, rows: int) -> None:
    session = InterpreterSession()
    assert dataset_of(session.from_table(TABLE), from_files(session)).count_rows() == rows
    assert session.plans == []


@pytest.mark.parametrize(
    "dataset_of",
    [
        lambda t: t.filter(pc.field("x") > 1),
        lambda t: t.filter(pc.field("x") > 1).union(t).filter(pc.field("x") > 1),
        lambda t: t.group_by("y").aggregate([]),
        lambda t: t.map_batches(lambda batch: batch.slice(1), schema=t.schema),
        lambda t: t.join(t.rename_columns(["x", "z"]), "x"),
        lambda t: t.sample(0.5, seed=3),
    ],
    ids=["filter", "union", "groups", "function", "join", "sample"],
)
def test_rows_that_must_be_looked_at_are_counted_by_a_job(dataset_of: Any) -> None:
    session = InterpreterSession()
    dataset = dataset_of(session.from_table(TABLE))
    assert dataset.count_rows() == dataset.to_table().num_rows
    assert len(session.plans) == 2


def test_rows_of_files_without_footers_are_counted_by_a_job() -> None:
    session = InterpreterSession()
    with pytest.raises(FileNotFoundError):
        from_files(session, "csv").count_rows()
    assert len(session.plans) == 1
