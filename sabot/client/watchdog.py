"""Notices that an agent has died or frozen while one of its calls is waited for.

Flight cannot end a call that has not given its stream yet, and its deadlines are for whole streams, which may be long.
So calls are made in threads of the session's own: who waits asks the agent's native ping now and then, and gives up a
call whose agent does not answer. Its thread ends with the deadline of the call, or when the agent goes on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from typing import TypeVar

from sabot.client.flight import ping_agent
from sabot.errors import PeerError, PeerLost

SILENCE_S = 2.0
"""Who is silent for so long is asked whether it lives."""

T = TypeVar("T")
Call = Callable[[threading.Event], T]
"""A blocking call. Once the event is set nobody wants its answer any more."""


class Watchdog:
    """Makes calls for any number of threads, until it is closed. A ping may take as long as `deadline_s()` says."""

    def __init__(self, deadline_s: Callable[[], float]) -> None:
        self._deadline_s = deadline_s
        self._idle: list[_Caller] = []
        self._closed = False

    def call(self, call: Call[T], *, address: str, what: str) -> T:
        """What `call` gives or raises; PeerLost with the name `what` where the agent at the Flight address falls silent
        first. Ctrl-C ends this wait, too.
        """
        caller = self._take_caller()
        left = threading.Event()
        try:
            future = caller.start(call, left)
            while not wait([future], timeout=SILENCE_S).done:
                self._check_alive(address, what)
        except BaseException:
            left.set()
            caller.end()
            raise
        if self._closed:
            caller.end()
        else:
            self._idle.append(caller)
        given: T = future.result()
        return given

    def each(self, stream: Generator[T, None, None], *, address: str, what: str) -> Iterator[T]:
        """What `stream` gives, which blocks and never gives None; PeerLost as in `call`."""

        def take(left: threading.Event) -> T | None:
            item = next(stream, None)
            if left.is_set():
                stream.close()
            return item

        while (item := self.call(take, address=address, what=what)) is not None:
            try:
                yield item
            except GeneratorExit:
                stream.close()
                raise

    def close(self) -> None:
        """Ends the threads that wait for nothing; those of calls that were given up end with these."""
        self._closed = True
        idle, self._idle = self._idle, []
        for caller in idle:
            caller.end()

    def _take_caller(self) -> _Caller:
        try:
            return self._idle.pop()
        except IndexError:
            return _Caller()

    def _check_alive(self, address: str, what: str) -> None:
        deadline_s = self._deadline_s()
        try:
            ping_agent(address, timeout_s=deadline_s)
        except PeerError as error:
            raise PeerLost(
                f"{what}: agent {address} has died or frozen, a ping was not answered within {deadline_s:g} s; "
                "see whether it still runs (sabot-agent agents), then run the job again",
                address=address,
                deadline_s=deadline_s,
            ) from error


class _Caller:
    """A thread that makes one call after the other."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="sabot-call", daemon=True).start()

    def start(self, call: Call[T], left: threading.Event) -> Future[T]:
        future: Future[T] = Future()

        def make() -> None:
            try:
                given = call(left)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(given)

        self._calls.put(make)
        return future

    def end(self) -> None:
        """The thread ends with the call that it makes now."""
        self._calls.put(None)

    def _work(self) -> None:
        while (make := self._calls.get()) is not None:
            make()
            del make
