"""The jobs that agents are struck in: TPC-H joins and sorts, and for each the rows that DuckDB gives."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from examples.tpch.answers import Row, duckdb_answers
from examples.tpch.queries import QUERIES
from examples.tpch.tables import NAMES, Tables
from sabot.dataflow.dataset import Dataset

_JOINS = (3, 5, 10, 12, 18)
_COLUMNS = ["l_orderkey", "l_linenumber", "l_extendedprice", "o_orderdate", "o_orderpriority"]
_ORDERED = [("l_extendedprice", "descending"), ("l_orderkey", "ascending"), ("l_linenumber", "ascending")]
_JOINED_SQL = f"select {', '.join(_COLUMNS)} from lineitem join orders on l_orderkey = o_orderkey"
_SORTED_SQL = f"{_JOINED_SQL} order by l_extendedprice desc, l_orderkey, l_linenumber"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How often rows are too few or too many in an answer; `misplaced`: the rows are right, their order is not."""

    lost: int = 0
    doubled: int = 0
    misplaced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosJob:
    """`run` gives the answer's rows, in order where `ordered`."""

    name: str
    run: Callable[[Tables], Sequence[Row]]
    expected: Sequence[Row]
    ordered: bool = True

    def check(self, rows: Sequence[Row]) -> Outcome:
        if list(rows) == list(self.expected):
            return Outcome()
        found, wanted = Counter(rows), Counter(self.expected)
        lost, doubled = (wanted - found).total(), (found - wanted).total()
        return Outcome(lost=lost, doubled=doubled, misplaced=self.ordered and not lost and not doubled)


def chaos_jobs(data: Path, scratch: Path) -> list[ChaosJob]:
    """Five queries with joins, a join of all lines sorted, and the same written as files below `scratch`."""
    answers = duckdb_answers(data, _JOINS)
    queries = [
        ChaosJob(name=f"query {number}", run=_query(QUERIES[number]), expected=answers[number]) for number in _JOINS
    ]
    with duckdb.connect() as database:
        for name in NAMES:
            database.execute(f"create view {name} as select * from read_parquet('{data}/{name}/*.parquet')")
        in_order = database.execute(_SORTED_SQL).fetchall()
    whole = ChaosJob(name="join and sort", run=_query(_joined_in_order), expected=in_order)
    written = ChaosJob(name="join and write", run=_Write(scratch), expected=in_order, ordered=False)
    return [*queries, whole, written]


def _query(query: Callable[[Tables], Dataset]) -> Callable[[Tables], Sequence[Row]]:
    def run(tables: Tables) -> Sequence[Row]:
        return _rows(query(tables).to_table())

    return run


def _joined(tables: Tables) -> Dataset:
    joined = tables.lineitem.join(tables.orders, "l_orderkey", "o_orderkey", join_type="inner")
    return joined.select(_COLUMNS)


def _joined_in_order(tables: Tables) -> Dataset:
    return _joined(tables).sort_by(_ORDERED)


class _Write:
    """Writes the join and reads it back; a run that fails must leave no file that a reader would see."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._runs = 0

    def __call__(self, tables: Tables) -> Sequence[Row]:
        self._runs += 1
        folder = self._scratch / f"written-{self._runs}"
        try:
            with _joined(tables).write_dataset(folder) as result:
                assert result.receipt.exact, str(result.receipt)
            return _rows(ds.dataset(folder, format="parquet").to_table(columns=_COLUMNS))
        except BaseException:
            with suppress(FileNotFoundError):
                assert not list(folder.glob("*.parquet")), f"a failed job left files in {folder}"
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _rows(table: pa.Table) -> list[Row]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))
