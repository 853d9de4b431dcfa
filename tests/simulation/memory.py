"""The bytes of one agent: the real Ledger and the real CreditDesk, driven as native Credits and the spill writer do.

Stored chunks go to a disk that may be full. Everything that waits here waits for what stands to its right: a sender for
credit, credit for the store, the store for the disk, and the disk for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sabot.errors import LimitReached
from sabot.native._native import CreditDeskMachine, LedgerMachine

from .clock import Timer
from .jobs import Rows

if TYPE_CHECKING:
    from .agent import Agent, HeldShuffle

CHUNK_BYTES = 1000
REQUEST_WAIT_S = 1.0


def bytes_of(rows: Rows) -> int:
    return 100 + 100 * len(rows) if rows else 0


class Memory:
    """`bytes_max` 0: no limit."""

    def __init__(self, agent: Agent, bytes_max: int, disk_bytes_max: int) -> None:
        self._agent = agent
        self.bytes_max = bytes_max
        self.ledger = LedgerMachine(bytes_max)
        self.desk = CreditDeskMachine(CHUNK_BYTES)
        self.disk_left = self.disk_bytes_max = disk_bytes_max
        self.disk_failed = False  # what is on it cannot be read, and nothing can be written
        self._spilling = False
        self._streams = 0
        self._waiting: dict[int, tuple[Callable[[], None], Timer]] = {}  # requests, by stream
        self._hungry: list[Callable[[], None]] = []  # tried again when something was freed

    # Credit, as native Credits gives it

    def open_stream(self, peer: str) -> int:
        self._streams += 1
        stream = self._streams
        own = self.desk.opened(stream, peer)
        if own:
            self.ledger.reserve(own)
        self._grant_ahead(stream)
        self.press()
        return stream

    def close_stream(self, stream: int) -> None:
        waits = self._waiting.pop(stream, None)
        if waits is not None:
            waits[1].cancel()
        self.ledger.unreserve(self.desk.closed(stream))
        self._serve_waiting()
        self.freed()

    def request(self, stream: int, total: int, answer: Callable[[], None]) -> None:
        """Answers when `total` is granted, or after a while with what is."""
        self.desk.wanted(stream, total)
        self._serve_waiting()
        if not self.desk.waits(stream):
            answer()
            return
        timer = self._agent.later(REQUEST_WAIT_S, lambda: self._answer(stream), deadline=True)
        self._waiting[stream] = (answer, timer)
        self.press()

    def settled(self, stream: int, count: int) -> None:
        self.ledger.unreserve(self.desk.settled(stream, count))
        self._serve_waiting()
        self._grant_ahead(stream)

    def _answer(self, stream: int) -> None:
        answer, timer = self._waiting.pop(stream)
        timer.cancel()
        if self.desk.waits(stream):
            self.desk.answered(stream)
            self._serve_waiting()
        answer()

    def _serve_waiting(self) -> None:
        while (need := self.desk.next_waiting()) is not None:
            stream, count = need
            if not self.ledger.try_reserve(count):
                if self._spilling or not self.desk.lend_own_chunks():
                    break
                continue
            self.ledger.unreserve(self.desk.reserved(stream, count))
        else:
            self.ledger.withdraw()
        for stream in [stream for stream in self._waiting if not self.desk.waits(stream)]:
            self._answer(stream)

    def _grant_ahead(self, stream: int) -> None:
        need = self.desk.ahead(stream)
        if need is not None and self.ledger.reserve_if_room(need[1]):
            self.ledger.unreserve(self.desk.reserved(*need))

    # Allocation and the disk

    def allocate(self, account: str, count: int) -> bool:
        there = self.ledger.try_allocate(account, count)
        self._agent.world.checks.bytes(self)
        self.press()
        return there

    def free(self, account: str, count: int) -> None:
        self.ledger.free(account, count)
        self._serve_waiting()
        self.freed()

    def when_freed(self, act: Callable[[], None]) -> None:
        self._hungry.append(act)
        self.press()

    def freed(self) -> None:
        hungry, self._hungry = self._hungry, []
        for act in hungry:
            self._agent.later(0.0, act)

    def press(self) -> None:
        """The spill writer looks whether something is to be freed."""
        if self._spilling or not (self.ledger.bytes_to_free or self._hungry):
            return
        for shuffle in self._agent.shuffles.values():
            if any(chunk.in_memory for chunk in shuffle.chunks):
                self._spilling = True
                self._agent.later(self._agent.world.rng.uniform(0.0, 0.01), lambda at=shuffle: self._spill(at))
                return
        if any(outbox.coldest() is not None for outbox in self._agent.outboxes.values()):
            self._spilling = True
            self._agent.later(self._agent.world.rng.uniform(0.0, 0.01), self._spill_outbox)

    def _has_disk(self, rows: Rows) -> bool:
        return not self.disk_failed and self.disk_left >= bytes_of(rows)

    def _spill_outbox(self) -> None:
        """After what is stored goes what waits to be sent. Where the disk is full it stays."""
        self._spilling = False
        coldest = next((c for outbox in self._agent.outboxes.values() if (c := outbox.coldest()) is not None), None)
        if coldest is None or not self._has_disk(coldest.rows):
            self._serve_waiting()
            return
        self.disk_left -= bytes_of(coldest.rows)
        coldest.on_disk = True
        self._agent.world.say("spill", "agent-%s spills %s bytes to be sent", self._agent.place, bytes_of(coldest.rows))
        self.free("outbox", bytes_of(coldest.rows))
        self._spilled()

    def _spill(self, shuffle: HeldShuffle) -> None:
        self._spilling = False
        chunk = next((chunk for chunk in shuffle.chunks if chunk.in_memory), None)
        if chunk is None:
            pass  # its job has ended meanwhile
        elif not self._has_disk(chunk.rows):
            self._agent.world.fault("full disk", "of agent-%s", self._agent.place)
            shuffle.failure = LimitReached("rows could not be written to disk (limit=spill.bytes_max)")
            self.forget(shuffle)
        else:
            self.disk_left -= bytes_of(chunk.rows)
            chunk.in_memory = False
            self._agent.world.say("spill", "agent-%s spills %s bytes", self._agent.place, bytes_of(chunk.rows))
            self.free("store", bytes_of(chunk.rows))
        self._spilled()

    def _spilled(self) -> None:
        """What is a peer's own was not lent meanwhile."""
        self.press()
        if not self._spilling:
            self._serve_waiting()

    def forget(self, shuffle: HeldShuffle) -> None:
        """Frees all that is stored of it."""
        chunks, shuffle.chunks = shuffle.chunks, []
        for chunk in chunks:
            if chunk.in_memory:
                self.free("store", bytes_of(chunk.rows))
            else:
                self.disk_left += bytes_of(chunk.rows)
