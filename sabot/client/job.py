"""A job that runs while the program goes on: `Dataset.submit` gives one.

A thread follows the job to its end. Dropping the handle cancels the job, as does the end of the program or of its
session: nobody could take its result any more.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace

from sabot.client.job_run import Inbox
from sabot.client.receipt import StageStats
from sabot.client.result import Result
from sabot.errors import JobCancelled

_END_WAIT_S = 10.0
_SIGNALS_S = 0.2
"""Between two looks for Ctrl-C: libraries (Polars is one) install handlers after which a wait goes on (SA_RESTART)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is. While it is queued, `jobs_ahead` jobs are to end before it starts, and it has no stages."""

    jobs_ahead: int = 0
    stages: tuple[StageStats, ...] = ()


class Seen:
    """What the coordinator has last said of a job, for one thread to tell and any to read; `tell` is told, too."""

    def __init__(
        self, *, on_queued: Callable[[int], None] | None, on_progress: Callable[[Sequence[StageStats]], None] | None
    ) -> None:
        self.progress = Progress()
        self._on_queued = on_queued
        self._on_progress = on_progress

    def queued(self, jobs_ahead: int) -> None:
        self.progress = Progress(jobs_ahead=jobs_ahead)
        if self._on_queued is not None:
            self._on_queued(jobs_ahead)

    def stages(self, stages: Sequence[StageStats]) -> None:
        self.progress = replace(self.progress, jobs_ahead=0, stages=tuple(stages))
        if self._on_progress is not None:
            self._on_progress(stages)


Follow = Callable[[Inbox, Seen], Result]


class Job:
    """Made by a session; `result()` waits for it, `cancel()` ends it."""

    def __init__(
        self,
        job_id: str,
        follow: Follow,
        *,
        on_queued: Callable[[int], None] | None = None,
        on_progress: Callable[[Sequence[StageStats]], None] | None = None,
    ) -> None:
        self.job_id = job_id
        self._inbox = Inbox()
        self._seen = Seen(on_queued=on_queued, on_progress=on_progress)
        self._future: Future[Result] = Future()
        arguments = (follow, self._inbox, self._seen, self._future)
        self._thread = threading.Thread(target=_work, args=arguments, name=f"sabot-job-{job_id[:8]}", daemon=True)
        dropped = JobCancelled(f"job {job_id} was cancelled: nobody holds it any more", job=job_id)
        weakref.finalize(self, self._inbox.put, dropped)
        self._thread.start()

    @property
    def progress(self) -> Progress:
        """What the coordinator has last said, up to five times a second."""
        return self._seen.progress

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._future.done()

    def result(self, timeout_s: float | None = None) -> Result:
        """Waits for the job's end; raises its failure as its own type. TimeoutError after `timeout_s`, which ends only
        the wait: the job goes on.
        """
        ends_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not self._future.done() and (left_s := ends_s - time.monotonic()) > 0:
            wait([self._future], min(left_s, _SIGNALS_S))
        return self._future.result(0)

    def cancel(self, because: str = "by its client") -> None:
        """Ends the job on all agents, queued or running, and returns at once; `result()` then raises JobCancelled.
        Harmless where it has ended.
        """
        self._inbox.put(JobCancelled(f"job {self.job_id} was cancelled {because}", job=self.job_id))

    def wait_ended(self) -> None:
        """Waits until nothing here follows the job any more."""
        self._thread.join(timeout=_END_WAIT_S)

    def __repr__(self) -> str:
        ahead = self.progress.jobs_ahead
        state = "ended" if self.done() else f"queued behind {ahead}" if ahead else "running"
        return f"<sabot.Job {self.job_id}, {state}>"


def _work(follow: Follow, inbox: Inbox, seen: Seen, future: Future[Result]) -> None:
    try:
        result = follow(inbox, seen)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
