"""Fixtures that the client's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.plain_agent import PlainAgent, serving
from tests.client.plain_server import PlainServer


@pytest.fixture
def server() -> Iterator[PlainServer]:
    with PlainServer() as running:
        yield running


@pytest.fixture
def dead_address() -> str:
    """An address at which nobody listens."""
    with PlainServer() as running:
        return running.address


@pytest.fixture
def plain_agent() -> Iterator[PlainAgent]:
    with serving(PlainAgent()) as agent:
        yield agent
