"""Things kept until a deadline: one timer for all of them, armed only while there is something to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Leases:
    """Calls `expired(name)` once a lease has run out that was not ended before. Used on the loop's thread only."""

    def __init__(self, expired: Callable[[str], None]) -> None:
        self._expired = expired
        self._due: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._due

    def start(self, name: str, lease_s: float) -> None:
        """Keep `name` for `lease_s` from now, whatever was agreed before."""
        self._due[name] = asyncio.get_running_loop().time() + lease_s
        self._arm()

    def end(self, name: str) -> bool:
        """Forget `name`; true where it was kept."""
        held = self._due.pop(name, None) is not None
        self._arm()
        return held

    def close(self) -> None:
        self._due.clear()
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = min(self._due.values(), default=None)
        self._timer = None if due is None else asyncio.get_running_loop().call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        names = [name for name, due in self._due.items() if due <= now]
        for name in names:
            del self._due[name]
        self._arm()
        for name in names:
            self._expired(name)
