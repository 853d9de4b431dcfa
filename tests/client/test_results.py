"""A result in the forms that users want: whole, batch by batch, as a pandas frame, and by the Arrow C stream."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from sabot.client.partition_stream import read_whole, stream_partition
from sabot.client.receipt import Receipt, Stats
from sabot.client.result import Result, ResultPart
from sabot.client.session import Session
from sabot.client.watchdog import Watchdog
from sabot.errors import PeerLost, ShuffleIntegrityError, UsageError
from tests.client.plain_server import PlainServer, sum_of

MIB = 1 << 20
TABLE = pa.table({"x": pa.array(range(1000), pa.int64()), "s": [str(i % 7) for i in range(1000)]})


ResultOf = Callable[..., Result]


@pytest.fixture
def result_of(server: PlainServer, watchdog: Watchdog) -> ResultOf:
    def made(batches: list[pa.RecordBatch], rows: int | None = None) -> Result:
        return result_on(server, watchdog, batches, rows)

    return made


def result_on(
    server: PlainServer, watchdog: Watchdog, batches: list[pa.RecordBatch], rows: int | None = None
) -> Result:
    """A result of one partition, of which its task has reported `rows`."""
    server.parts["t"] = (batches[0].schema, batches)
    content_sum = sum(map(sum_of, batches)) % 2**64
    rows = sum(batch.num_rows for batch in batches) if rows is None else rows
    part = ResultPart(
        partition=0, flight_address=server.address, ticket="t", rows=rows, content_sum=content_sum, agent_id="a"
    )
    return Result(
        schema=batches[0].schema,
        parts=[part],
        receipt=Receipt(job_id="j", shuffles=(), result_rows=rows),
        stats=Stats(stages=(), elapsed_s=0.0),
        watchdog=watchdog,
    )


def test_reading_batches_holds_a_part_of_the_answer_only(server: PlainServer, result_of: ResultOf) -> None:
    sent: list[int] = []
    server.tamper = lambda batch, metadata: sent.append(1) or (batch, metadata)
    batch = pa.record_batch({"x": pa.nulls(MIB // 8, pa.int64()).fill_null(7)})
    batches = result_of([batch] * 300).to_batches()
    assert next(batches).num_rows == MIB // 8
    assert len(sent) < 150, "the rest waits at the agent"
    assert sum(1 for _ in batches) == 299


def test_batches_that_nobody_reads_on_are_let_go(result_of: ResultOf) -> None:
    batch = pa.record_batch({"x": pa.nulls(MIB // 8, pa.int64()).fill_null(7)})
    batches = result_of([batch] * 300).to_batches()
    next(batches)
    del batches  # the fixture sees a thread or connection that stays


def test_fault_of_a_whole_partition_comes_in_the_place_of_its_end(result_of: ResultOf) -> None:
    batches = result_of(TABLE.to_batches(max_chunksize=300), rows=1001).to_batches()
    with pytest.raises(ShuffleIntegrityError, match=r"has 1000 rows .* and not 1001"):
        list(batches)


def broken_after(rows: int, table: pa.Table) -> Iterator[pa.RecordBatch]:
    yield from table.slice(0, rows).to_batches(max_chunksize=7)
    if rows < table.num_rows:
        raise PeerLost("the stream was cut")


def test_stream_that_is_cut_is_opened_again_and_gives_each_row_once() -> None:
    lengths = iter([10, 25, 300, 1000])
    rows = pa.Table.from_batches(stream_partition(lambda: broken_after(next(lengths), TABLE), "it"))
    assert rows.equals(TABLE)


def test_stream_that_gives_nothing_new_is_given_up() -> None:
    lengths = chain([10, 20], repeat(20, 3))
    with pytest.raises(PeerLost, match="the stream was cut"):
        list(stream_partition(lambda: broken_after(next(lengths), TABLE), "it"))
    assert next(lengths, None) is None, "it was given up too early"


def test_whole_partition_is_read_again_where_its_connection_breaks_and_not_where_it_times_out() -> None:
    lengths = iter([10, 25, 1000])
    assert pa.Table.from_batches(read_whole(lambda: broken_after(next(lengths), TABLE))).equals(TABLE)
    tries: list[int] = []

    def timed_out() -> Iterator[pa.RecordBatch]:
        tries.append(1)
        raise PeerLost("it took too long", deadline_s=30.0)
        yield

    with pytest.raises(PeerLost, match="too long"):
        read_whole(timed_out)
    assert len(tries) == 1


def test_rows_in_another_order_after_a_cut_are_not_taken_for_the_same() -> None:
    tables = iter([broken_after(10, TABLE), broken_after(1000, TABLE.take(list(range(999, -1, -1))))])
    with pytest.raises(PeerLost, match=r"it was read again .* came in another order"):
        list(stream_partition(lambda: next(tables), "it"))


def test_pandas_that_is_missing_is_said_before_anything_runs(
    live_session: Session, monkeypatch: pytest.MonkeyPatch, result_of: ResultOf
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pandas" else found(name))
    for source in (live_session.from_table(TABLE), result_of(TABLE.to_batches())):
        with pytest.raises(UsageError, match="to_pandas needs pandas, which is not installed here: pip install pandas"):
            source.to_pandas()  # type: ignore[attr-defined]


def test_pandas_gets_the_rows(live_session: Session) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed: only to_pandas needs it")
    frame = live_session.from_table(TABLE).sort_by("x").to_pandas(types_mapper=None)
    assert frame["x"].tolist() == list(range(1000)) and frame["s"].tolist() == TABLE["s"].to_pylist()


def total_by_duckdb(source: Any) -> int:
    with duckdb.connect(config={"threads": 1}) as connection:  # more would run our code in threads that stay
        return int(connection.from_arrow(source).aggregate("sum(x)").fetchall()[0][0])


def total_by_polars(source: Any) -> int:
    import polars as pl  # type: ignore[import-not-found]

    return int(pl.DataFrame(source)["x"].sum())


def total_by_pandas(source: Any) -> int:
    import pandas as pd  # type: ignore[import-untyped]

    return int(pd.DataFrame.from_arrow(source)["x"].sum())


def total_by_pyarrow(source: Any) -> int:
    return int(sum(pa.table(source)["x"].to_pylist()))


TOTALS: dict[str, Callable[[Any], int]] = {
    "duckdb": total_by_duckdb,
    "polars": total_by_polars,
    "pandas": total_by_pandas,
    "pyarrow": total_by_pyarrow,
}


@pytest.mark.parametrize("library", TOTALS)
def test_library_reads_datasets_and_results_as_they_stand(live_session: Session, library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed: Sabot does not need it")
    dataset = live_session.from_table(TABLE).repartition("s")
    assert TOTALS[library](dataset) == sum(range(1000))
    with dataset.run() as result:
        assert TOTALS[library](result) == sum(range(1000))
        assert TOTALS[library](result) == sum(range(1000)), "it can be read again"
