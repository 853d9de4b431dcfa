"""By which owner table an attempt sends its rows: the newest one that its agent knows when the first of them go.

An attempt that has sent nothing yet when an agent is lost goes on and sends by the table without it; only what is on
its way already is done again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from sabot.shuffle.attempts import AttemptWriter


class SentEpoch:
    """Of one attempt; thread-safe."""

    def __init__(self) -> None:
        # A table that comes while a writer is opened by the old one waits, and finds it.
        self._lock = threading.Lock()
        self._writer: AttemptWriter | None = None

    @property
    def epoch(self) -> int | None:
        """None as long as nothing was sent."""
        return None if self._writer is None else self._writer.epoch

    def open(self, open_writer: Callable[[], AttemptWriter]) -> AttemptWriter:
        """The attempt begins to send, by the table of now and to its end."""
        with self._lock:
            self._writer = open_writer()
            return self._writer

    def is_before(self, epoch: int) -> bool:
        """Whether it sends by a table that is older than that of `epoch`, which its agent has by now."""
        with self._lock:
            return self._writer is not None and self._writer.epoch < epoch

    def abort(self) -> None:
        """What waits for owners to confirm ends."""
        if self._writer is not None:
            self._writer.abort()
