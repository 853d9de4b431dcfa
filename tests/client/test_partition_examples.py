"""The examples with DuckDB and Polars inside partitions give what DuckDB gives for the whole table."""

from __future__ import annotations

from collections.abc import Callable

import duckdb
import pyarrow as pa
import pytest

from examples.partitions import in_duckdb, in_polars
from examples.partitions.readings import make_readings
from sabot.client.session import Session


@pytest.mark.parametrize("library", ["duckdb", "polars"])
def test_example_has_the_answer_of_one_process(live_session: Session, library: str) -> None:
    pytest.importorskip(library, reason=f"{library} is not installed: only the example needs it")
    example: dict[str, Callable[[Session, pa.Table], pa.Table]] = {
        "duckdb": in_duckdb.largest_jumps,
        "polars": in_polars.largest_jumps,
    }
    readings = make_readings(5_000)
    answer = example[library](live_session, readings)
    with duckdb.connect() as connection:
        connection.register("readings", readings)
        query = f"select * from ({in_duckdb.WINDOW}) where jump is not null order by jump desc limit 5"
        expected = connection.sql(query).to_arrow_table()
    assert answer.select(["sensor", "second"]).to_pydict() == expected.select(["sensor", "second"]).to_pydict()
    assert answer["jump"].to_pylist() == pytest.approx(expected["jump"].to_pylist(), rel=1e-9)
