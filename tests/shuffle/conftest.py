"""Servers, transports and rows that the shuffle's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from sabot.shuffle import ShuffleServer, ShuffleTransport
from sabot.slots import TaskSlotManager


@pytest.fixture
def slots() -> Iterator[TaskSlotManager]:
    manager = TaskSlotManager(num_slots=2)
    yield manager
    manager.shutdown()


@pytest.fixture
def make_transport(slots: TaskSlotManager) -> Iterator[Callable[..., ShuffleTransport]]:
    """Makes transports on free ports that are closed after the test."""
    made: list[ShuffleTransport] = []

    def make(**options: object) -> ShuffleTransport:
        made.append(ShuffleTransport(slot_pool=slots.native_pool, **{"open_wait_s": 0.2, **options}))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for transport in made:
        transport.close()


@pytest.fixture
def make_server() -> Iterator[Callable[..., ShuffleServer]]:
    """Makes servers on free ports that are closed after the test."""
    made: list[ShuffleServer] = []

    def make(**options: object) -> ShuffleServer:
        made.append(ShuffleServer(**{"open_wait_s": 0.2, **options}))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def rows() -> pa.RecordBatch:
    """A hundred rows of a number, a text with nulls and a float."""
    return pa.record_batch(
        {
            "number": pa.array(range(100), pa.int64()),
            "text": pa.array([None if i % 7 == 0 else f"row {i}" for i in range(100)]),
            "ratio": pa.array([i / 3 for i in range(100)]),
        }
    )
