"""What a Dataset does besides planning: running, closing, streaming, showing itself."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.stage import WriteOutput
from tests.dataflow.interpreter import InterpreterSession

TABLE = pa.table({"k": ["a", "b", "a"], "x": [1, 2, 3]})


def test_nothing_runs_until_rows_are_asked_for() -> None:
    session = InterpreterSession()
    dataset = session.from_table(TABLE).filter(pc.field("x") > 1).sort_by("x").head(1)
    _ = dataset.schema, dataset.explain(), repr(dataset), dataset.column_names
    assert session.plans == []
    assert dataset.to_table().to_pylist() == [{"k": "b", "x": 2}]
    assert len(session.plans) == 1


def test_rows_that_were_fetched_are_given_up_by_the_agents() -> None:
    session = InterpreterSession()
    dataset = session.from_table(TABLE)
    dataset.to_table()
    dataset.group_by("k").aggregate([]).count_rows()
    list(dataset.to_batches())
    batches = dataset.to_batches()
    next(batches)
    batches.close()
    assert [result.closed for result in session.results] == [True] * 4


def test_a_result_that_was_run_stays_until_it_is_closed() -> None:
    session = InterpreterSession()
    result = session.from_table(TABLE).run()
    assert result.to_table().equals(result.to_table())
    assert not session.results[0].closed


def test_to_batches_streams_all_rows() -> None:
    batches = list(InterpreterSession().from_table(TABLE).to_batches())
    assert pa.Table.from_batches(batches).equals(TABLE)


def test_other_engines_read_a_dataset_as_it_stands() -> None:
    dataset = InterpreterSession().from_table(TABLE).filter(pc.field("x") > 1)
    assert pa.table(dataset).to_pydict() == {"k": ["b", "a"], "x": [2, 3]}
    with duckdb.connect() as connection:
        reader = pa.RecordBatchReader.from_stream(dataset)
        assert connection.from_arrow(reader).aggregate("sum(x)").fetchall() == [(5,)]


def test_a_stream_is_cast_to_the_schema_that_its_reader_asks_for() -> None:
    wanted = pa.schema([("k", pa.large_string()), ("x", pa.int64())])
    reader = pa.RecordBatchReader.from_stream(InterpreterSession().from_table(TABLE), schema=wanted)
    assert reader.read_all().schema == wanted


def test_write_dataset_becomes_the_job_s_output() -> None:
    session = InterpreterSession()
    session.from_table(TABLE).write_dataset(Path("some") / "folder")
    session.from_table(TABLE).write_dataset("other", format="feather")
    assert [plan.stages[-1].output for plan in session.plans] == [
        WriteOutput(folder="some/folder", format="parquet", basename_template="part-{i}.parquet"),
        WriteOutput(folder="other", format="ipc", basename_template="part-{i}.arrow"),
    ]


def test_repr_shows_the_columns() -> None:
    assert repr(InterpreterSession().from_table(TABLE)) == "<sabot.Dataset k: string, x: int64>"


def test_repr_calls_no_function_of_the_user_s() -> None:
    calls = []
    dataset = InterpreterSession().from_table(TABLE).map_batches(lambda batch: calls.append(batch) or batch)
    assert repr(dataset) == "<sabot.Dataset, columns not learnt yet: see .schema>"
    assert not calls
    _ = dataset.schema
    assert repr(dataset) == "<sabot.Dataset k: string, x: int64>"
    assert len(calls) == 1


def test_the_schema_has_no_metadata_and_is_nullable_whatever_the_table_s() -> None:
    schema = pa.schema([pa.field("x", pa.int64(), nullable=False)], metadata={"a": "b"})
    dataset = InterpreterSession().from_table(pa.table([[1]], schema=schema))
    assert dataset.schema.equals(pa.schema([("x", pa.int64())]), check_metadata=True)
    assert dataset.filter(pc.field("x") > 0).to_table().schema.equals(dataset.schema, check_metadata=True)
