"""Virtual time: what is to happen, in order, and the processes to which it happens. Nothing here waits for anything.

What is due for a frozen process waits until it thaws; what is due for a dead one never happens.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Process:
    """One life of an agent. A dead one never comes back: a restart is another process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        self.held: list[Timer] = []


class Timer:
    """Something that will happen, unless it is cancelled. A `deadline` is moved by a jump of its process's clock."""

    __slots__ = ("act", "cancelled", "deadline", "due_s", "process")

    def __init__(self, due_s: float, process: Process | None, act: Callable[[], None], deadline: bool) -> None:
        self.due_s = due_s
        self.process = process
        self.act = act
        self.deadline = deadline
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """`now_s` moves from one thing to the next."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._queue: list[tuple[float, int, Timer]] = []
        self._order = 0

    def after(
        self, delay_s: float, process: Process | None, act: Callable[[], None], *, deadline: bool = False
    ) -> Timer:
        """`act` happens to `process`, or to nobody who could freeze or die, `delay_s` from now."""
        return self.at(self.now_s + delay_s, process, act, deadline=deadline)

    def at(self, due_s: float, process: Process | None, act: Callable[[], None], *, deadline: bool = False) -> Timer:
        """As `after`; what is due at the same time happens in the order in which it was asked for."""
        timer = Timer(due_s, process, act, deadline)
        self._push(timer)
        return timer

    def now(self, process: Process, act: Callable[[], None]) -> None:
        """`act` happens to `process` before anything else does; once it has thawed, where it is frozen."""
        if process.frozen:
            process.held.append(Timer(self.now_s, process, act, False))
        elif not process.dead:
            act()

    def step(self) -> bool:
        """Let the next thing happen; False where nothing is left."""
        while self._queue:
            due_s, _, timer = heapq.heappop(self._queue)
            if timer.cancelled or due_s != timer.due_s:
                continue
            process = timer.process
            if process is not None and process.dead:
                continue
            self.now_s = due_s
            if process is not None and process.frozen:
                process.held.append(timer)
                continue
            timer.act()
            return True
        return False

    def next_due_s(self) -> float | None:
        return self._queue[0][0] if self._queue else None

    def thaw(self, process: Process) -> None:
        """What was due while it was frozen happens now, in the order in which it was due."""
        process.frozen = False
        held, process.held = process.held, []
        for timer in held:
            timer.due_s = self.now_s
            self._push(timer)

    def jump(self, process: Process, seconds: float) -> None:
        """The process's clock is put forward: its deadlines are that much nearer."""
        for _, _, timer in sorted(self._queue, key=lambda entry: entry[:2]):
            if timer.process is process and timer.deadline and not timer.cancelled:
                timer.due_s = max(self.now_s, timer.due_s - seconds)
                self._push(timer)

    def _push(self, timer: Timer) -> None:
        self._order += 1
        heapq.heappush(self._queue, (timer.due_s, self._order, timer))
