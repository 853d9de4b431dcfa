"""A call that an agent does not answer is given up when the agent answers no ping either, and only then."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Never

import pytest

from sabot.client import watchdog as module
from sabot.client.watchdog import Watchdog
from sabot.errors import PeerLost
from tests.client.plain_server import PlainServer


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.05)


def test_call_of_an_agent_that_answers_pings_may_take_its_time(server: PlainServer, watchdog: Watchdog) -> None:
    pings = threading.Semaphore(0)
    server.pinged = pings.release

    def after_three_pings(left: threading.Event) -> str:
        for _ in range(3):
            assert pings.acquire(timeout=20)
        return "answer"

    assert watchdog.call(after_three_pings, address=server.address, what="it") == "answer"


def test_call_of_an_agent_that_answers_no_ping_is_told_that_nobody_wants_it(
    silent_address: str, watchdog: Watchdog
) -> None:
    told = threading.Event()

    def until_left(left: threading.Event) -> None:
        assert left.wait(20)
        told.set()

    with pytest.raises(PeerLost, match=rf"^the call: agent {silent_address} has died or frozen, .* within 2 s"):
        watchdog.call(until_left, address=silent_address, what="the call")
    assert told.wait(20)


def test_failure_of_a_call_is_its_own(server: PlainServer, watchdog: Watchdog) -> None:
    def failing(left: threading.Event) -> Never:
        raise TimeoutError("of the call itself")

    for _ in range(2):
        with pytest.raises(TimeoutError, match="of the call itself"):
            watchdog.call(failing, address=server.address, what="it")


def test_stream_is_closed_where_its_reader_stops_and_where_its_agent_is_lost(
    server: PlainServer, silent_address: str, watchdog: Watchdog
) -> None:
    closed = threading.Semaphore(0)
    goes_on = threading.Event()

    def stream() -> Generator[int, None, None]:
        try:
            yield 1
            goes_on.wait(20)
            yield 2
        finally:
            closed.release()

    read = watchdog.each(stream(), address=server.address, what="it")
    assert next(read) == 1
    read.close()  # type: ignore[attr-defined]
    assert closed.acquire(timeout=20)
    read = watchdog.each(stream(), address=silent_address, what="it")
    assert next(read) == 1
    with pytest.raises(PeerLost):
        next(read)
    goes_on.set()
    assert closed.acquire(timeout=20)


def test_calls_one_after_the_other_are_made_by_one_thread_which_ends_with_the_watchdog(server: PlainServer) -> None:
    made = Watchdog(lambda: 2.0)
    threads = {made.call(lambda _: threading.current_thread(), address=server.address, what="it") for _ in range(5)}
    assert len(threads) == 1
    made.close()
    (thread,) = threads
    thread.join(20)
    assert not thread.is_alive()
    late = made.call(lambda _: threading.current_thread(), address=server.address, what="it")
    late.join(20)
    assert not late.is_alive(), "nobody would end it any more"
