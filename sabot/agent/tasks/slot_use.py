"""Which slots a task's work ran in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from sabot.slots.operators import function_name

T = TypeVar("T")
_PREFIX = "sabot-slot-"


class SlotUse:
    """The numbers of the slots; added to by the task's thread and, each for itself, by the slots."""

    def __init__(self) -> None:
        self._slots: set[int] = set()

    def add(self, slots: Iterable[int]) -> None:
        """These slots ran some of it."""
        self._slots.update(slots)

    def noted(self, function: Callable[[], T]) -> Callable[[], T]:
        """`function`, noting the slot that it is called in: slots name their threads."""

        def call() -> T:
            name = Path("/proc/thread-self/comm").read_text().strip()
            if name.startswith(_PREFIX):
                self._slots.add(int(name.removeprefix(_PREFIX)))
            return function()

        call.__qualname__ = function_name(function)  # by which the slots account for it
        return call

    def slots(self) -> list[int]:
        """Those known so far, in order."""
        return sorted(self._slots)
