"""Lets a task start when its working memory is reserved whole in the ledger; until then it waits here, as data.

On the daemon's loop alone: no thread and no slot waits. One task of the agent may always run, whatever it needs, so
that there is always somebody whose end makes room: what it needs is promised at once, and it starts when the memory is
below the high-water mark again, or nobody frees any of it any more. First come, first served: a large task is not
starved by small ones.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sabot.native._native import Ledger


@dataclass(slots=True, eq=False)
class _Parked:
    num_bytes: int
    cancelled: threading.Event
    admitted: asyncio.Future[None]
    reserved: bool = False


class TaskRoom:
    """The tasks that wait for memory, and the reservations of those that run. `guard` False, for tests, admits all."""

    def __init__(self, ledger: Ledger, *, guard: bool = True) -> None:
        self._ledger = ledger
        # From the start: a signal made only once somebody waits would miss what is freed between refusal and waiting.
        self._freed_fd = ledger.freed_fd
        self._guard = guard
        self._parked: deque[_Parked] = deque()
        self._running = 0
        self._listens = False

    @property
    def parked(self) -> int:
        """Tasks that wait."""
        return len(self._parked)

    @asynccontextmanager
    async def reserved(self, num_bytes: int, cancelled: threading.Event) -> AsyncIterator[None]:
        """Waits until `num_bytes` are reserved, and holds them for the block; nothing is where `cancelled` is set."""
        mine = _Parked(num_bytes, cancelled, asyncio.get_running_loop().create_future())
        try:
            self._parked.append(mine)
            self.look_again()
            await mine.admitted
            yield
        finally:
            if not mine.admitted.done() or mine.admitted.cancelled():
                self._parked.remove(mine)
            if mine.reserved:
                self._running -= 1
                self._ledger.unreserve_task(num_bytes)
            self.look_again()

    def look_again(self) -> None:
        """Admits whoever has room now, and whoever has been cancelled: he will see it and end."""
        for one in [one for one in self._parked if one.cancelled.is_set()]:
            self._admit(one)
        while self._parked and self._may_start(self._parked[0]):
            self._admit(self._parked[0])
        if not self._parked:
            self._ledger.withdraw_tasks()
        self._listen(bool(self._parked))

    def _admit(self, one: _Parked) -> None:
        if one.admitted.cancelled():  # its own cleaning up is on its way
            return
        self._parked.remove(one)
        one.admitted.set_result(None)

    def _may_start(self, one: _Parked) -> bool:
        if one.admitted.cancelled():
            return False
        if not one.reserved:
            if self._running == 0 or not self._guard:
                self._ledger.reserve_task(one.num_bytes)
            elif not self._ledger.try_reserve_task(one.num_bytes):
                return False
            one.reserved = True
            self._running += 1
        return not (self._guard and self._ledger.above_high_water and self._ledger.freeing)

    def _listen(self, wanted: bool) -> None:
        if wanted == self._listens:
            return
        self._listens = wanted
        loop = asyncio.get_running_loop()
        if wanted:
            loop.add_reader(self._freed_fd, self._on_freed)
        else:
            loop.remove_reader(self._freed_fd)

    def _on_freed(self) -> None:
        os.read(self._freed_fd, 8)
        self.look_again()
