"""Fixtures that the client's tests share."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator

import pyarrow.csv
import pytest

from sabot import LocalCluster
from sabot.client.session import Session
from sabot.client.watchdog import Watchdog
from tests.client.plain_agent import PlainAgent, serving
from tests.client.plain_server import PlainServer


@pytest.fixture(scope="session", autouse=True)
def arrow_signal_pipe() -> None:
    """Arrow opens a pipe for signals at its first CSV and keeps it for the life of the process."""
    pyarrow.csv.read_csv(io.BytesIO(b"a\n1\n"))


@pytest.fixture
def server() -> Iterator[PlainServer]:
    with PlainServer() as running:
        yield running


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    made = Watchdog(lambda: 2.0)
    yield made
    made.close()


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address that takes connections and never says a word, as that of a frozen process."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def dead_address() -> str:
    """An address at which nobody listens."""
    with PlainServer() as running:
        return running.address


@pytest.fixture
def plain_agent() -> Iterator[PlainAgent]:
    with serving(PlainAgent()) as agent:
        yield agent


@pytest.fixture(scope="module")
def two_agents() -> Iterator[LocalCluster]:
    """A cluster for a whole module; a test that hurts agents starts its own."""
    with LocalCluster(agents=2, slots=1) as cluster:
        yield cluster


@pytest.fixture
def live_session(two_agents: LocalCluster) -> Iterator[Session]:
    with two_agents.connect(progress=False) as session:
        yield session
