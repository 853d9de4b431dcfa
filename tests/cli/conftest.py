"""One agent for all tests that only look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from sabot.cli.main import cli
from tests.agent.processes import AgentProcess, Agents


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """A real agent named a with one slot."""
    agents = Agents(tmp_path_factory.mktemp("agents"))
    yield agents.start("a")
    agents.close()


@pytest.fixture
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agents]:
    """Starts agents for one test."""
    started = Agents(tmp_path_factory.mktemp("agents"))
    yield started
    started.close()


@pytest.fixture
def run() -> Callable[..., Result]:
    """Runs sabot-agent in this process; the result has exit code, output and error output."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    return run
