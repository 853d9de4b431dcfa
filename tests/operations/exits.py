"""Every way in which rows of this process become a Dataset, and in which a Dataset's rows come to its user."""

from __future__ import annotations

import importlib.util
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import strategies as st

from sabot.dataflow.dataset import Dataset
from sabot.errors import UsageError
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.tables import chunked, shaped_tables

from .arena import Arena, Operation


def _dataset(arena: Arena, case: tuple[pa.Table, pa.Table]) -> tuple[Dataset, pa.Table]:
    return arena.session.from_table(case[1]).repartition("i"), case[0]


def _tables(arena: Arena, case: tuple[pa.Table, pa.Table]) -> None:
    dataset, table = _dataset(arena, case)
    assert dataset.schema.equals(table.schema) and dataset.column_names == table.column_names
    assert_same_rows(dataset.to_table(), table)
    batches = list(dataset.to_batches())
    assert_same_rows(pa.Table.from_batches(batches, dataset.schema), table)
    again = arena.session.from_batches(table.to_batches(max_chunksize=5), table.schema)
    arena.same(again, table)


def _results(arena: Arena, case: tuple[pa.Table, pa.Table]) -> None:
    dataset, table = _dataset(arena, case)
    with dataset.run() as result:
        assert result.num_rows == table.num_rows
        for _ in range(2):
            assert_same_rows(result.to_table(), table)
        assert result.receipt.exact and result.receipt.rows_in == table.num_rows
    job = dataset.submit()
    with job.result(30) as result:
        assert_same_rows(result.to_table(), table)


def _streams(arena: Arena, case: tuple[pa.Table, pa.Table]) -> None:
    dataset, table = _dataset(arena, case)
    assert_same_rows(pa.table(dataset), table)
    with pa.RecordBatchReader.from_stream(dataset.select(["i", "p"])) as reader:
        assert_same_rows(reader.read_all(), table.select(["i", "p"]))
    if importlib.util.find_spec("pandas") is None:
        with pytest.raises(UsageError, match="pandas"):
            dataset.to_pandas()
    else:
        assert len(dataset.to_pandas()) == table.num_rows


def _explained(arena: Arena, case: tuple[pa.Table, pa.Table]) -> None:
    dataset, table = _dataset(arena, case)
    assert "shuffle by hash of i" in dataset.explain()
    measured = str(dataset.explain(analyze=True))
    assert measured.count("  took  ") == 2 and f"{table.num_rows:,} rows" in measured


def _operation(name: str, methods: str, check: Any) -> Operation:
    cases = shaped_tables().flatmap(lambda table: st.tuples(st.just(table), chunked(table)))
    return Operation(name=name, methods=frozenset(methods.split()), cases=cases, check=check)


EXITS = (
    _operation("to_table, to_batches", "to_table to_batches schema column_names repartition", _tables),
    _operation("run, submit", "run submit repartition", _results),
    _operation("streams, to_pandas", "__arrow_c_stream__ to_pandas select", _streams),
    _operation("explain", "explain", _explained),
)
