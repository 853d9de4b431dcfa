"""Frees on the agents the results that nobody holds any more.

A finaliser may run in any thread at any moment, also while a lock of gRPC's is held; so it only leaves a note in a
re-entrant queue, and a thread of the session's makes the calls.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable

_EXIT_WAIT_S = 2.0


class Releaser:
    """Calls `release(job_id)` for every id left with it, in a thread of its own, until it is closed.

    `release` must not raise. At the end of the program what was left before is released within two seconds or given up.
    """

    def __init__(self, release: Callable[[str], None]) -> None:
        self._ids: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=_work, args=(self._ids, release), name="sabot-release-results", daemon=True
        )
        self._thread.start()
        self._stop = weakref.finalize(self, _stop, self._ids, self._thread)

    def watch(self, owner: object, job_id: str) -> weakref.finalize[[str], object]:
        """Releases `job_id` when `owner` is collected, or when the returned finaliser is called."""
        return weakref.finalize(owner, self._ids.put, job_id)

    def close(self) -> None:
        """Releases what was left and ends the thread; a second call does nothing."""
        self._stop()


def _work(ids: queue.SimpleQueue[str | None], release: Callable[[str], None]) -> None:
    while (job_id := ids.get()) is not None:
        release(job_id)


def _stop(ids: queue.SimpleQueue[str | None], thread: threading.Thread) -> None:
    ids.put(None)
    if thread is not threading.current_thread():
        thread.join(timeout=_EXIT_WAIT_S)
