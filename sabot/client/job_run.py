"""Follows one submitted job to its end.

A thread reads the coordinator's events, so that the caller's wait can be interrupted by Ctrl-C and notices a
coordinator that has gone silent. Where one is lost another agent takes the job over, as long as there is one. However
else the wait ends, a job that has not ended is cancelled.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sabot.client.control import JobStream
from sabot.client.receipt import StageStats, stages_from
from sabot.client.seat import Seat
from sabot.client.watchdog import SILENCE_S
from sabot.errors import (
    JobCancelled,
    JobTakenOver,
    LimitReached,
    PeerError,
    PeerLost,
    SabotError,
    UsageError,
)
from sabot.wire import agent_pb2
from sabot.wire.failure import from_failure


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """An event of a stream, or how the stream has ended: None without a word."""

    stream: JobStream
    item: agent_pb2.JobEvent | BaseException | None


_Item = _Heard | BaseException


class _CoordinatorLost(Exception):
    """Another agent may go on with the job; it ends with `error` where none can."""

    def __init__(self, error: SabotError) -> None:
        super().__init__(error.message)
        self.error = error


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Who is told how the job is."""

    queued: Callable[[int], None]
    progress: Callable[[Sequence[StageStats]], None]


def run_job(seat: Seat, told: Told, inbox: Inbox, deadline: Deadline | None = None) -> agent_pb2.JobFinished:
    """Submits the job and waits for its end; raises the job's failure as its own type, and any error put into `inbox`.

    A coordinator that has said nothing for a while is asked whether it lives.
    """
    while True:
        try:
            return _follow(seat, told, inbox, deadline)
        except _CoordinatorLost as lost:
            seat.succeed(lost.error)


def _follow(seat: Seat, told: Told, inbox: Inbox, deadline: Deadline | None) -> agent_pb2.JobFinished:
    """The job under one coordinator. What earlier ones still say is not heard any more."""
    stream = seat.submit()
    reader = threading.Thread(target=_read, args=(stream, inbox), name=f"sabot-read-{seat.job_id[:8]}", daemon=True)
    cancels = True
    try:
        reader.start()
        while True:
            item = _next(seat, inbox, deadline)
            if isinstance(item, BaseException):
                raise item
            if item is None or item.stream is not stream:
                continue
            if isinstance(item.item, agent_pb2.JobEvent):
                cancels = item.item.WhichOneof("event") not in {"finished", "failed"}
            finished = _take(item.item, seat, told)
            if finished is not None:
                seat.confirm()
                return finished
    except _CoordinatorLost:
        cancels = False
        raise
    finally:
        if cancels:
            seat.control.cancel_job(seat.job_id)
        stream.close()
        if reader.is_alive():
            reader.join(timeout=seat.control.timeout_s)


def _next(seat: Seat, inbox: Inbox, deadline: Deadline | None) -> _Item | None:
    """What comes in next; None where nothing did for a while, and the coordinator lives."""
    left_s = SILENCE_S if deadline is None else min(SILENCE_S, deadline.check(seat.job_id))
    try:
        return inbox.get(timeout=left_s)
    except queue.Empty:
        pass
    if left_s == SILENCE_S:
        try:
            seat.check_alive()
        except PeerError as error:
            raise _CoordinatorLost(error) from error
    return None


def _read(stream: JobStream, items: Inbox) -> None:
    try:
        for event in stream:
            items.put(_Heard(stream=stream, item=event))
    except BaseException as error:
        items.put(_Heard(stream=stream, item=error))
    else:
        items.put(_Heard(stream=stream, item=None))


def _take(item: agent_pb2.JobEvent | BaseException | None, seat: Seat, told: Told) -> agent_pb2.JobFinished | None:
    if item is None:
        address = seat.control.address
        raise _CoordinatorLost(
            PeerLost(
                f"agent {address} ended the job without saying how it went; see its log, then run the job again",
                address=address,
            )
        )
    if isinstance(item, BaseException):
        raise _broken(item, seat)
    kind = item.WhichOneof("event")
    match kind:
        case "failed":
            error = from_failure(item.failed)
            # Of an upload that is lost with an agent the client has the rows: it brings them to a successor.
            lost_upload = isinstance(error, PeerLost) and "upload" in error.facts
            if isinstance(error, JobTakenOver | PeerLost) and (lost_upload or isinstance(error, JobTakenOver)):
                raise _CoordinatorLost(error)
            raise error
        case "accepted":
            seat.accepted(item.accepted)
        case "queued":
            told.queued(item.queued.jobs_ahead)
        case "progress":
            told.progress(stages_from(item.progress.stages))
        case "publish":
            try:
                seat.grant_publish()
            except (PeerError, JobTakenOver) as error:
                raise _CoordinatorLost(error) from error
        case "finished":
            told.progress(stages_from(item.finished.stages))
            return item.finished
    return None


def _broken(error: BaseException, seat: Seat) -> BaseException:
    """What a stream that has broken means: whether another agent may go on."""
    lost = (PeerLost, JobCancelled, JobTakenOver)
    if isinstance(error, lost) or (seat.taken_over and isinstance(error, SabotError)):
        return _CoordinatorLost(error)
    return error
