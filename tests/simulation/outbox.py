"""One peer's outbox for one shuffle around the real SendWindow: what native Outbox does with threads and Flight."""

from __future__ import annotations

from functools import partial
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


class _Lane:
    """One of the streams, as it is now."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.retries = 0  # since it was last answered
        self.pausing = False
        self.used_s = 0.0


class Outbox:
    """Sends over `streams` at once; resumes broken ones for RESUME_S after the last sign of life, then has failed."""

    def __init__(self, agent: Agent, address: str, streams: int) -> None:
        self._agent = agent
        self._address = address
        self._window = SendWindowMachine(address, WINDOW_CHUNKS, streams=streams)
        self._lanes = [_Lane() for _ in range(streams)]
        self._rows: dict[bytes, tuple[Rows, list[Listener]]] = {}  # a task that was started twice says the same twice
        self._failure: SabotError | None = None
        self._alive_s = 0.0

    @property
    def failed(self) -> bool:
        return self._failure is not None

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
        now_s = self._agent.world.clock.now_s
        for number, lane in enumerate(self._lanes):
            if self._failure is not None or lane.pausing:
                continue
            if lane.stream is not None and not self._window.unacknowledged(number) and now_s - lane.used_s > IDLE_S:
                lane.stream.forget()
                lane.stream = None
            while (header := self._window.write(number)) is not None:
                stream = lane.stream or self._open(number)
                lane.used_s = now_s
                stream.write(header, self._rows[header][0])
            self._agent.world.checks.window(self._window.unacknowledged(number), WINDOW_CHUNKS)

    def _open(self, number: int) -> Stream:
        lane = self._lanes[number]
        if lane.retries == 0:
            self._alive_s = self._agent.world.clock.now_s
        lane.stream = Stream(
            self._agent.world.network,
            self._agent,
            self._address,
            on_ack=partial(self._on_ack, number),
            on_break=partial(self._on_break, number),
            timeout_s=STREAM_TIMEOUT_S,
        )
        return lane.stream

    def _on_ack(self, number: int, ack: bytes) -> None:
        try:
            header = self._window.acknowledge(ack, number)
        except SabotError as error:
            self._fail(error)
            return
        lane = self._lanes[number]
        self._alive_s = lane.used_s = self._agent.world.clock.now_s
        lane.retries = 0
        listeners = self._rows[header][1]
        listener = listeners.pop(0)
        if not listeners:
            del self._rows[header]
        listener.acknowledged(self._address, header, ack_error(ack))
        self._send()

    def _on_break(self, number: int, how: str) -> None:
        lane, clock = self._lanes[number], self._agent.world.clock
        lane.stream = None
        if self._failure is not None or not self._window.unacknowledged(number):
            return
        if clock.now_s >= self._alive_s + RESUME_S:
            self._fail(PeerLost(f"Agent {self._address} broke off while it was being sent to: {how}"))
            return
        self._window.rewind(number)
        lane.pausing = True
        clock.after(0.01 * 2 ** min(lane.retries, 5), self._agent.process, partial(self._again, number))
        lane.retries += 1

    def _again(self, number: int) -> None:
        self._lanes[number].pausing = False
        self._send()

    def _fail(self, error: SabotError) -> None:
        if self._failure is None:
            self._failure = error
        for lane in self._lanes:
            if lane.stream is not None:
                lane.stream.forget()
                lane.stream = None
        lost, self._rows = self._rows, {}
        for listener in [listener for _, listeners in lost.values() for listener in listeners]:
            listener.undelivered(error)
