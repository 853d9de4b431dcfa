"""The image and the compose file run the flights job, over two containers and over four, and agree with DuckDB."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest

from tests.docker.compose import ROOT, Project, docker, why_not

pytestmark = pytest.mark.timeout(900)  # building the image and starting containers included
DATA = "/data/flights"
JOIN_S = 60.0


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """A project name whose image is built; skips where there is no engine."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    wheels = subprocess.run(
        ["make", "wheels", f"VENV={sys.prefix}"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert wheels.returncode == 0, wheels.stdout + wheels.stderr
    name = f"sabot-test-{os.getpid()}"
    Project(name=name).compose("build")
    yield name
    docker("image", "rm", "--force", f"sabot:{name}")


@pytest.fixture(scope="module")
def flights() -> ModuleType:
    """examples/flights.py as a module."""
    spec = importlib.util.spec_from_file_location("flights", ROOT / "examples" / "flights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(flights: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = flights.prepare_data(tmp_path_factory.mktemp("data") / "flights")
    assert isinstance(folder, Path)
    return folder


def duckdb_answer(data: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(
            f"""
            select a.name, p.manufacturer, count(*), avg(dep_delay), avg(dep_delay - arr_delay),
                   max(distance / (air_time / 60.0)), sum(p.seats)
            from '{data}/flights-*.parquet' f join '{data}/planes.parquet' p using (tailnum)
                 left join '{data}/airlines.parquet' a using (carrier)
            where dep_delay > 0 and arr_delay is not null and air_time is not null
            group by all order by count(*) desc, a.name, p.manufacturer
            """
        ).fetchall()


def wait_for_agents(project: Project, count: int) -> None:
    """Asks again and again, about once a second by the command's own time, until `count` agents are members."""
    deadline = time.monotonic() + JOIN_S
    seen: object = None
    while time.monotonic() < deadline:
        try:
            seen = project.agents()
        except RuntimeError as error:
            seen = error
        else:
            if len(seen) == count:
                return
    pytest.fail(f"{count} agents did not find each other within {JOIN_S} s: {seen}\n{project.compose('logs')}")


@pytest.fixture(scope="module", params=[2, 4])
def cluster(request: pytest.FixtureRequest, image: str) -> Iterator[tuple[Project, int]]:
    count = request.param
    project = Project(name=image, profiles=("four",) if count == 4 else ())
    try:
        project.compose("up", "--detach", "--no-build")
        wait_for_agents(project, count)
        yield project, count
    finally:
        project.compose("down", "--volumes", "--timeout", "40")


def test_flights_job_over_containers_gives_the_answer_of_duckdb(cluster: tuple[Project, int], data: Path) -> None:
    project, count = cluster
    project.copy(data, "agent-1", DATA)
    project.copy(ROOT / "examples" / "flights.py", "agent-1", "/tmp/flights.py")
    project.copy(Path(__file__).with_name("flights_job.py"), "agent-1", "/tmp/flights_job.py")

    facts = json.loads(project.inside("agent-1", "/opt/sabot/bin/python", "/tmp/flights_job.py", "agent-1:8815", DATA))

    rows = [tuple(row.values()) for row in facts["answer"]]
    expected = duckdb_answer(data)
    assert [row[:3] for row in rows] == [row[:3] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row[3:] == pytest.approx(other[3:], rel=1e-9)
    assert facts["lost"] == facts["doubled"] == 0
    assert facts["rows_in"] + facts["copies"] == facts["rows_out"] > 0
    assert facts["wire_bytes"] > 0
    assert len(facts["slots"]) == count
    for agent, slots in facts["slots"].items():
        assert sum(slot["network_morsels"] for slot in slots) > 0, f"{agent} got nothing over the network"


def test_containers_are_healthy_and_run_as_another_user_than_root(cluster: tuple[Project, int]) -> None:
    project, count = cluster
    for number in range(1, count + 1):
        assert project.inside(f"agent-{number}", "id", "-un").strip() == "sabot"
        project.inside(f"agent-{number}", "sabot-agent", "ping")


def test_agent_in_a_container_ends_with_code_0_when_it_is_stopped(cluster: tuple[Project, int]) -> None:
    project, count = cluster
    container = project.compose("ps", "-q", f"agent-{count}").strip()
    project.compose("stop", "--timeout", "40", f"agent-{count}")
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container).strip() == "0"
