"""Agents with addresses of their own, one of which is cut off in mid-job without a word to anyone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.agent.processes import AgentProcess, Agents
from tests.jobs.rows import make_table
from tests.jobs.test_end_to_end_failures import until
from tests.netns.network import Network, why_not

NODES = 3
PEER_DEADLINE_S = 2
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network(NODES)
    yield network
    network.close()


@pytest.fixture
def agents(network: Network, tmp_path: Path) -> Iterator[list[AgentProcess]]:
    """One agent of one slot on each node, on the ports that agents have by default; the first one is joined."""
    started = Agents(tmp_path / "agents")

    def start(node: int) -> AgentProcess:
        flags = ["--host", network.host(node), "--insecure"]
        flags += ["--join", f"{network.host(0)}:8815"] if node else []
        return started.start(
            f"node-{node}",
            *flags,
            ports=(),
            environment={"SABOT_JOBS_PEER_DEADLINE_S": str(PEER_DEADLINE_S)},
            prefix=network.inside(node),
        )

    yield [start(node) for node in range(NODES)]
    started.close()


def run(prefix: Sequence[str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def status_of(network: Network, address: str) -> dict[str, Any]:
    done = run(network.at_the_hub, "-m", "sabot.cli.main", "status", "--json", "--agent", address)
    out, err = done.communicate(timeout=30)
    assert done.returncode == 0, err
    status: dict[str, Any] = json.loads(out)
    return status


def test_agent_cut_off_in_mid_job_costs_its_work_and_not_the_job(
    network: Network, agents: list[AgentProcess], tmp_path: Path
) -> None:
    (tmp_path / "started").mkdir()
    client = run(network.at_the_hub, "-m", "tests.netns.held_job", f"{network.host(0)}:8815", str(tmp_path))
    until(lambda: len(list((tmp_path / "started").iterdir())) >= NODES)
    network.cut_off(NODES - 1)
    (tmp_path / "go").touch()
    out, err = client.communicate(timeout=60)
    assert client.returncode == 0, err
    expected = make_table(8000).group_by(["k"]).aggregate([("v", "sum"), ([], "count_all")]).sort_by("k")
    assert json.loads(out) == {"rows": expected.to_pylist()}
    network.rejoin(NODES - 1)
    for node in range(NODES):
        address = f"{network.host(node)}:8815"
        until(lambda address=address: status_of(network, address)["jobs_running"] == 0)  # type: ignore[misc]


def test_agent_that_is_reached_again_takes_part_in_the_next_job(
    network: Network, agents: list[AgentProcess], tmp_path: Path
) -> None:
    network.cut_off(1)
    took_part = []
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        (folder / "started").mkdir(parents=True)
        (folder / "go").touch()
        client = run(network.at_the_hub, "-m", "tests.netns.held_job", f"{network.host(0)}:8815", str(folder))
        out, err = client.communicate(timeout=60)
        assert client.returncode == 0, err
        assert len(json.loads(out)["rows"]) == 97
        took_part.append(len(list((folder / "started").iterdir())))
        network.rejoin(1)
    assert took_part == [NODES - 1, NODES]
