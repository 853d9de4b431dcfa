"""What examples/flights.py prints is what DuckDB computes from the package's own CSV files."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest
from rich.console import Console

from sabot import LocalCluster
from sabot.client.session import Session

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "flights.py"


@pytest.fixture(scope="module")
def flights() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flights", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(flights: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = flights.prepare_data(tmp_path_factory.mktemp("data") / "flights")
    assert isinstance(folder, Path)
    return folder


@pytest.fixture(scope="module")
def expected(flights: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """The answer by DuckDB, which reads the CSV files itself."""
    folder = tmp_path_factory.mktemp("csv")
    with zipfile.ZipFile(flights.package_file("flights.csv.zip")) as archive:
        archive.extract("flights.csv", folder)
    planes, airlines = flights.package_file("planes.csv"), flights.package_file("airlines.csv")
    with duckdb.connect() as connection:
        return connection.execute(
            f"""
            select a.name, p.manufacturer, count(*), avg(dep_delay), avg(dep_delay - arr_delay),
                   max(distance / (air_time / 60)), sum(p.seats)
            from read_csv('{folder}/flights.csv', nullstr='NA') f
                 join read_csv('{planes}', nullstr='NA') p using (tailnum)
                 left join read_csv('{airlines}') a using (carrier)
            where dep_delay > 0 and arr_delay is not null and air_time is not null
            group by all order by count(*) desc, a.name, p.manufacturer
            """
        ).fetchall()


def test_answer_is_that_of_duckdb(
    flights: ModuleType, data: Path, expected: list[tuple[Any, ...]], live_session: Session
) -> None:
    with flights.flights_answer(live_session, data) as result:
        rows = [tuple(row.values()) for row in result.to_table().to_pylist()]
        assert len(rows) == len(expected)
        for row, other in zip(rows, expected, strict=True):
            assert row[:3] == other[:3]
            assert row[3:] == pytest.approx(other[3:], rel=1e-9)
        assert result.receipt.exact
        receipt = result.receipt
        assert receipt.rows_in + receipt.copies == receipt.rows_out > 10_000
        assert result.receipt.wire_bytes > 0


def test_printed_rows_are_those_of_duckdb(
    flights: ModuleType, data: Path, expected: list[tuple[Any, ...]], live_session: Session
) -> None:
    printed = io.StringIO()
    flights.run_and_show(Console(file=printed, width=200), live_session, data)
    lines = [" ".join(line.split()) for line in printed.getvalue().splitlines()]
    for name, maker, late, minutes, made_up, top, seats in expected[: flights.ROWS_SHOWN]:
        assert f"{name} {maker} {late:,} {minutes:,.1f} {made_up:,.1f} {top:,.1f} {seats:,}" in lines
    assert any("lost 0, doubled 0" in line and "bytes over the wire" in line for line in lines)


def test_both_agents_work_on_local_and_on_network_morsels(
    flights: ModuleType, data: Path, two_agents: LocalCluster, live_session: Session
) -> None:
    before = live_session.slot_stats()
    flights.flights_answer(live_session, data).close()
    after = live_session.slot_stats()
    assert sorted(after) == sorted(agent.agent_id for agent in two_agents.agents)
    for agent_id, (slot,) in after.items():
        assert slot["local_morsels"] > before[agent_id][0]["local_morsels"]
        assert slot["network_morsels"] > before[agent_id][0]["network_morsels"]


def test_a_row_too_few_changes_the_printed_answer(
    flights: ModuleType, data: Path, expected: list[tuple[Any, ...]], live_session: Session, tmp_path: Path
) -> None:
    for file in data.iterdir():
        if file.name != "flights-7.parquet":
            (tmp_path / file.name).symlink_to(file)
    with flights.flights_answer(live_session, tmp_path) as result:
        rows = result.to_table().to_pylist()
    assert sum(row["count_all"] for row in rows) < sum(row[2] for row in expected)


def test_script_uses_a_running_cluster_when_told_its_address(data: Path, two_agents: LocalCluster) -> None:
    command = [sys.executable, str(EXAMPLE), "--agent", two_agents.agents[1].address, "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "lost 0, doubled 0" in done.stdout
    assert "local-0" in done.stdout and "local-1" in done.stdout


def test_data_are_prepared_once(flights: ModuleType, data: Path) -> None:
    before = sorted((file.name, file.stat().st_mtime_ns) for file in data.iterdir())
    assert len([name for name, _ in before if name.startswith("flights-")]) == 8
    assert flights.prepare_data(data) == data
    assert sorted((file.name, file.stat().st_mtime_ns) for file in data.iterdir()) == before
