"""Holds up tasks that read files while the agent is above its high-water mark, until it is below the low one.

The task's own thread waits, never a slot. One task goes on as soon as nobody frees memory any more, whatever is held:
what it makes is spilled or sent, and where nothing can be freed, its allocation is refused by name in place of a wait
without end. While somebody does, it waits, too: it may be faster than the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from sabot.errors import LimitReached
from sabot.native._native import Ledger

_LOOK_EVERY_S = 0.05


class SourceGate:
    """One for all tasks of an agent; safe from many threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._exempt: object | None = None  # guarded by _lock; the task that goes on whatever the memory

    def wait(self, task: object, *, check: Callable[[], None], timeout_s: float) -> None:
        """Returns when `task` may read on; `check` is called now and then. LimitReached at the deadline."""
        if not self._ledger.above_high_water or self._may_go_on(task):
            return
        deadline = monotonic() + timeout_s
        pause = threading.Event()  # nobody sets it: freed memory has many sources, and a look is cheap
        while not self._ledger.below_low_water and not self._may_go_on(task):
            check()
            if monotonic() >= deadline:
                now = self._ledger.snapshot()
                raise LimitReached(
                    f"the agent's memory stayed full for {timeout_s:g} s: {now['committed']:,} of {now['bytes_max']:,} "
                    "bytes are held or promised; raise memory.bytes_max, or run fewer jobs at once",
                    limit="memory.bytes_max",
                    value=now["bytes_max"],
                )
            pause.wait(_LOOK_EVERY_S)

    def leave(self, task: object) -> None:
        """`task` has ended: another may be the one that goes on."""
        with self._lock:
            if self._exempt is task:
                self._exempt = None

    def _may_go_on(self, task: object) -> bool:
        with self._lock:
            if self._exempt is None:
                self._exempt = task
            exempt = self._exempt is task
        return exempt and not (self._ledger.freeing and self._ledger.above_high_water)
