"""The outbox of one peer for one shuffle around the real SendWindow: what PeerLink does with threads and Flight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sabot.errors import JobCancelled, PeerLost, SabotError
from sabot.native._native import SendWindowMachine, ack_error

from .jobs import Rows
from .network import Stream

if TYPE_CHECKING:
    from .agent import Agent

STREAM_TIMEOUT_S = 30.0
RESUME_S = 2.0
IDLE_S = 1.0
WINDOW_CHUNKS = 2


class Listener(Protocol):
    def acknowledged(self, address: str, header: bytes, error: SabotError | None) -> None: ...
    def undelivered(self, error: SabotError) -> None: ...


class Outbox:
    """Sends in order; resumes a broken stream for RESUME_S after the last sign of life, then has failed for good."""

    def __init__(self, agent: Agent, address: str) -> None:
        self._agent = agent
        self._address = address
        self._window = SendWindowMachine(address, WINDOW_CHUNKS)
        self._rows: dict[bytes, tuple[Rows, list[Listener]]] = {}  # a task that was started twice says the same twice
        self._stream: Stream | None = None
        self._failure: SabotError | None = None
        self._alive_s = 0.0
        self._retries = 0
        self._used_s = 0.0

    def add(self, header: bytes, rows: Rows, listener: Listener) -> None:
        if self._failure is not None:
            listener.undelivered(self._failure)
            return
        self._rows.setdefault(header, (rows, []))[1].append(listener)
        self._window.add(header)
        self._send()

    def stop(self) -> None:
        self._fail(JobCancelled("The shuffle was ended while it was being sent."))

    def _send(self) -> None:
        clock = self._agent.world.clock
        if self._failure is not None or (self._retries and self._stream is None):
            return
        if self._stream is not None and not self._window.unacknowledged() and clock.now_s - self._used_s > IDLE_S:
            self._stream.forget()
            self._stream = None
        while (header := self._window.write()) is not None:
            if self._stream is None:
                self._open()
            self._used_s = clock.now_s
            assert self._stream is not None
            self._stream.write(header, self._rows[header][0])
        self._agent.world.checks.window(self._window.unacknowledged(), WINDOW_CHUNKS)

    def _open(self) -> None:
        if self._retries == 0:
            self._alive_s = self._agent.world.clock.now_s
        self._stream = Stream(
            self._agent.world.network,
            self._agent,
            self._address,
            on_ack=self._on_ack,
            on_break=self._on_break,
            timeout_s=STREAM_TIMEOUT_S,
        )

    def _on_ack(self, ack: bytes) -> None:
        try:
            header = self._window.acknowledge(ack)
        except SabotError as error:
            self._fail(error)
            return
        self._alive_s = self._used_s = self._agent.world.clock.now_s
        self._retries = 0
        listeners = self._rows[header][1]
        listener = listeners.pop(0)
        if not listeners:
            del self._rows[header]
        listener.acknowledged(self._address, header, ack_error(ack))
        self._send()

    def _on_break(self, how: str) -> None:
        self._stream = None
        if self._window.empty or self._failure is not None:
            return
        clock = self._agent.world.clock
        if clock.now_s >= self._alive_s + RESUME_S:
            self._fail(PeerLost(f"Agent {self._address} broke off while it was being sent to: {how}"))
            return
        self._window.rewind()
        pause_s = 0.01 * 2 ** min(self._retries, 5)
        self._retries += 1
        clock.after(pause_s, self._agent.process, self._again)

    def _again(self) -> None:
        if self._failure is None and self._stream is None:
            self._open()
            self._send()

    def _fail(self, error: SabotError) -> None:
        if self._failure is None:
            self._failure = error
        if self._stream is not None:
            self._stream.forget()
            self._stream = None
        lost, self._rows = self._rows, {}
        for listener in [listener for _, listeners in lost.values() for listener in listeners]:
            listener.undelivered(error)
