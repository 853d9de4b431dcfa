"""The ten TPC-H queries of examples/tpch have DuckDB's answers over one, two and four agents, in tiny chunks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.tpch.answers import Row, duckdb_answers, same_rows
from examples.tpch.queries import QUERIES
from examples.tpch.tables import Tables, make_tables, read_tables
from sabot import LocalCluster
from tests.client.connections import open_connections

SCALE = 0.01


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tables(tmp_path_factory.mktemp("data") / "tpch", SCALE)


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[int, list[Row]]:
    return duckdb_answers(folder, list(QUERIES))


@pytest.fixture(scope="module", params=[1, 2, 4])
def tables(request: pytest.FixtureRequest, folder: Path) -> Iterator[Tables]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SABOT_SHUFFLE_CHUNK_BYTES_MAX", str(64 * 1024))
        environment.setenv("SABOT_JOBS_SPLIT_BYTES", str(64 * 1024))
        with LocalCluster(agents=request.param, slots=1) as cluster, cluster.connect(progress=False) as session:
            open_connections(session)
            yield read_tables(session, folder)


@pytest.mark.parametrize("number", QUERIES)
def test_query_has_the_answer_of_duckdb(tables: Tables, expected: dict[int, list[Row]], number: int) -> None:
    with QUERIES[number](tables).run() as result:
        assert same_rows(result.to_table(), expected[number]), result.to_table()
        assert expected[number], "an empty answer would prove nothing"
        assert result.receipt.exact
