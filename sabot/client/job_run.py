"""Follows one submitted job to its end.

A thread reads the coordinator's events, so that the caller's wait can be interrupted by Ctrl-C and notices a
coordinator that has gone silent. However the wait ends, the stream is closed, which cancels a job that has not ended.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sabot.client.control import ControlClient, JobStream
from sabot.client.receipt import StageStats, stages_from
from sabot.errors import LimitReached, PeerLost, UsageError
from sabot.wire import agent_pb2
from sabot.wire.failure import from_failure

_SILENCE_S = 5.0

_Item = agent_pb2.JobEvent | BaseException | None  # None: the stream has ended


class Inbox(queue.SimpleQueue[_Item]):
    """What comes in about a job, and for whoever wants to end it the place to put the error that it ends with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """The moment, by time.monotonic, until which a job may run, and how long that was from its call."""

    timeout_s: float
    ends_s: float

    @classmethod
    def after(cls, timeout_s: float | None) -> Deadline | None:
        """None: no deadline. UsageError for what is no time."""
        if timeout_s is None:
            return None
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < float("inf"):
            raise UsageError(f"timeout_s is a number of seconds above 0, or None, not {timeout_s!r}")
        return cls(timeout_s=timeout_s, ends_s=time.monotonic() + timeout_s)

    def check(self, job_id: str) -> float:
        """The seconds that are left; LimitReached where none are."""
        left_s = self.ends_s - time.monotonic()
        if left_s <= 0:
            raise LimitReached(
                f"job {job_id} was cancelled after its timeout_s={self.timeout_s:g}; give it more time, or more agents",
                job=job_id,
                timeout_s=self.timeout_s,
            )
        return left_s


def run_job(
    control: ControlClient,
    job_id: str,
    plan: bytes,
    *,
    on_queued: Callable[[int], None],
    on_progress: Callable[[Sequence[StageStats]], None],
    check_alive: Callable[[], None],
    inbox: Inbox,
    deadline: Deadline | None = None,
) -> agent_pb2.JobFinished:
    """Submits `plan` and waits for its end; raises the job's failure as its own type, and any error put into `inbox`.

    `check_alive` is called when the coordinator has said nothing for a while, and raises when it is gone.
    """
    stream = control.submit_job(job_id, plan)
    reader = threading.Thread(target=_read, args=(stream, inbox), name=f"sabot-read-{job_id[:8]}", daemon=True)
    try:
        reader.start()
        while True:
            left_s = _SILENCE_S if deadline is None else min(_SILENCE_S, deadline.check(job_id))
            try:
                item = inbox.get(timeout=left_s)
            except queue.Empty:
                if left_s == _SILENCE_S:
                    check_alive()
                continue
            finished = _take(item, control, on_queued, on_progress)
            if finished is not None:
                return finished
    finally:
        stream.close()
        if reader.is_alive():
            reader.join(timeout=control.timeout_s)


def _read(stream: JobStream, items: Inbox) -> None:
    try:
        for event in stream:
            items.put(event)
    except BaseException as error:
        items.put(error)
    else:
        items.put(None)


def _take(
    item: _Item,
    control: ControlClient,
    on_queued: Callable[[int], None],
    on_progress: Callable[[Sequence[StageStats]], None],
) -> agent_pb2.JobFinished | None:
    if item is None:
        raise PeerLost(
            f"agent {control.address} ended the job without saying how it went; see its log, then run the job again",
            address=control.address,
        )
    if isinstance(item, BaseException):
        raise item
    kind = item.WhichOneof("event")
    if kind == "failed":
        raise from_failure(item.failed)
    if kind == "queued":
        on_queued(item.queued.jobs_ahead)
    if kind == "progress":
        on_progress(stages_from(item.progress.stages))
    if kind == "finished":
        on_progress(stages_from(item.finished.stages))
        return item.finished
    return None
