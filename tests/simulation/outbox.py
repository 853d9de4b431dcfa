"""One peer's outbox for one shuffle around the real SendWindow: what native Outbox does with threads and Flight."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from sabot.errors import JobCancelled, LimitReached, PeerLost, SabotError, ShuffleIntegrityError
from sabot.native._native import SendWindowMachine, decode_ack

from .headers import decode_header
from .jobs import Rows
from .memory import bytes_of
from .network import REQUEST, Stream

if TYPE_CHECKING:
    from .agent import Agent

STREAM_TIMEOUT_S = 30.0
RESUME_S = 2.0
IDLE_S = 1.0
WINDOW_CHUNKS = 2
MEMORY_PAUSE_S = 0.02


class Listener(Protocol):
    def acknowledged(self, address: str, header: bytes, error: SabotError | None) -> None: ...
    def undelivered(self, error: SabotError) -> None: ...


class Waiting:
    """A message that is not acknowledged yet, in memory or on disk."""

    def __init__(self, rows: Rows, listener: Listener) -> None:
        self.rows, self.listener = rows, listener
        self.taken = False  # by a stream
        self.on_disk = False


class _Lane:
    """One of the streams, as it is now."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.retries = 0  # since it was last answered
        self.pausing = False
        self.asking = False  # for credit; the first is given unasked
        self.starved_s: float | None = None
        self.heard_s = 0.0
        self.looks_later = False  # whether it is idle


class Outbox:
    """Sends over `streams` at once, against credit; resumes broken ones for RESUME_S after the last sign of life, then
    has failed. Its bytes are the agent's until they are acknowledged.
    """

    def __init__(self, agent: Agent, address: str, streams: int) -> None:
        self._agent = agent
        self._address = address
        self._window = SendWindowMachine(address, WINDOW_CHUNKS, streams=streams)
        self._lanes = [_Lane() for _ in range(streams)]
        self._waiting: dict[bytes, Waiting] = {}
        self._failure: SabotError | None = None
        self._alive_s = self._written_s = 0.0

    @property
    def failed(self) -> bool:
        return self._failure is not None

    def add(self, header: bytes, rows: Rows, listener: Listener) -> None:
        """The rows' bytes have been allocated on the outbox's account."""
        if self._failure is not None:
            self._agent.memory.free("outbox", bytes_of(rows))
            listener.undelivered(self._failure)
            return
        self._waiting[header] = Waiting(rows, listener)
        self._window.add(header)
        self._send()

    def stop(self) -> None:
        self._fail(JobCancelled("The shuffle was ended while it was being sent."))

    def _send(self) -> None:
        for number, lane in enumerate(self._lanes):
            while self._failure is None and not lane.pausing and (need := self._window.next(number)) is not None:
                stream = lane.stream or self._open(number)
                header = self._window.write(number)
                if header is None:
                    self._ask(lane, stream, need)
                    break
                lane.starved_s = None
                self._written_s = self._agent.world.clock.now_s
                self._write(lane, stream, header)
            self._agent.world.checks.window(self._window.unacknowledged(number), WINDOW_CHUNKS)

    def coldest(self) -> Waiting | None:
        """What may go to disk and will be sent last: no stream has taken it."""
        waiting = reversed(self._waiting.values())
        return next((one for one in waiting if one.rows and not one.taken and not one.on_disk), None)

    def _write(self, lane: _Lane, stream: Stream, header: bytes) -> None:
        """As soon as there is memory for it, where it is on disk. Meanwhile the lane stands still."""
        waiting, memory = self._waiting[header], self._agent.memory
        waiting.taken = True
        if waiting.on_disk:
            if memory.disk_failed:
                name = decode_header(header).shuffle_id
                self._fail(ShuffleIntegrityError("Rows cannot be read back from disk", shuffle=name))
                return
            if not memory.allocate("outbox", bytes_of(waiting.rows)):
                lane.pausing = True
                self._agent.later(MEMORY_PAUSE_S, partial(self._write_again, lane, stream, header))
                return
            waiting.on_disk = False
            memory.disk_left += bytes_of(waiting.rows)
        stream.write(header, waiting.rows)

    def _write_again(self, lane: _Lane, stream: Stream, header: bytes) -> None:
        if lane.stream is not stream or header not in self._waiting:
            return  # the stream has broken, and another writes it anew
        lane.pausing = False
        self._write(lane, stream, header)
        self._send()

    def _let_go(self, waiting: Waiting) -> None:
        if waiting.on_disk:
            self._agent.memory.disk_left += bytes_of(waiting.rows)
        else:
            self._agent.memory.free("outbox", bytes_of(waiting.rows))

    def _ask(self, lane: _Lane, stream: Stream, need: int) -> None:
        if lane.asking:
            return
        now_s = self._agent.world.clock.now_s
        if lane.starved_s is None:
            lane.starved_s = now_s
        if now_s - max(lane.starved_s, self._written_s) > STREAM_TIMEOUT_S:
            self._fail(LimitReached(f"Agent {self._address} has had no memory for another chunk for too long"))
            return
        lane.asking = True
        stream.write(REQUEST, (need,))

    def _open(self, number: int) -> Stream:
        lane = self._lanes[number]
        if lane.retries == 0:
            self._alive_s = self._agent.world.clock.now_s
        self._window.opened(number)
        lane.asking = True
        lane.stream = Stream(
            self._agent.world.network,
            self._agent,
            self._address,
            on_ack=partial(self._on_ack, number),
            on_break=partial(self._on_break, number),
            timeout_s=STREAM_TIMEOUT_S,
        )
        return lane.stream

    def _on_ack(self, number: int, data: bytes) -> None:
        lane, ack = self._lanes[number], decode_ack(data)
        header = None
        if ack.credit:
            lane.asking = False
            if ack.error is not None:
                self._fail(ack.error)
                return
        else:
            try:
                header = self._window.acknowledge(data, number)
            except SabotError as error:
                self._fail(error)
                return
        self._window.granted(ack.granted, number)
        self._alive_s = lane.heard_s = self._agent.world.clock.now_s
        lane.retries = 0
        self._look_later(number)
        if header is not None:
            waiting = self._waiting.pop(header)
            self._let_go(waiting)
            waiting.listener.acknowledged(self._address, header, ack.error)
        self._send()

    def _look_later(self, number: int) -> None:
        lane = self._lanes[number]
        if not lane.looks_later:
            lane.looks_later = True
            delay_s = lane.heard_s + IDLE_S - self._agent.world.clock.now_s
            self._agent.later(delay_s, partial(self._close_if_idle, number))

    def _close_if_idle(self, number: int) -> None:
        lane = self._lanes[number]
        lane.looks_later = False
        if lane.heard_s + IDLE_S > self._agent.world.clock.now_s:
            self._look_later(number)
            return
        quiet = not self._window.unacknowledged(number) and not lane.asking
        if lane.stream is not None and quiet and self._window.next(number) is None:
            lane.stream.forget()
            lane.stream = None

    def _on_break(self, number: int, how: str) -> None:
        lane, clock = self._lanes[number], self._agent.world.clock
        lane.stream, lane.asking = None, False
        if self._failure is not None or not (self._window.unacknowledged(number) or self._window.next(number)):
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
        lost, self._waiting = self._waiting, {}
        for waiting in lost.values():
            self._let_go(waiting)
            waiting.listener.undelivered(error)
