"""Follows one submitted job to its end.

A thread reads the coordinator's events, so that the caller's wait can be interrupted by Ctrl-C and notices a
coordinator that has gone silent. However the wait ends, the stream is closed, which cancels a job that has not ended.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from sabot.client.control import ControlClient, JobStream
from sabot.client.receipt import StageStats, stages_from
from sabot.errors import PeerLost
from sabot.wire import agent_pb2
from sabot.wire.failure import from_failure

_SILENCE_S = 5.0

_Item = agent_pb2.JobEvent | BaseException | None  # None: the stream has ended


def run_job(
    control: ControlClient,
    job_id: str,
    plan: bytes,
    *,
    on_progress: Callable[[Sequence[StageStats]], None],
    check_alive: Callable[[], None],
) -> agent_pb2.JobFinished:
    """Submits `plan` and waits for its end; raises the job's failure as its own type.

    `check_alive` is called when the coordinator has said nothing for a while, and raises when it is gone.
    """
    stream = control.submit_job(job_id, plan)
    items: queue.SimpleQueue[_Item] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(stream, items), name=f"sabot-job-{job_id[:8]}", daemon=True)
    try:
        reader.start()
        while True:
            try:
                item = items.get(timeout=_SILENCE_S)
            except queue.Empty:
                check_alive()
                continue
            finished = _take(item, control, on_progress)
            if finished is not None:
                return finished
    finally:
        stream.close()
        if reader.is_alive():
            reader.join(timeout=control.timeout_s)


def _read(stream: JobStream, items: queue.SimpleQueue[_Item]) -> None:
    try:
        for event in stream:
            items.put(event)
    except BaseException as error:
        items.put(error)
    else:
        items.put(None)


def _take(
    item: _Item, control: ControlClient, on_progress: Callable[[Sequence[StageStats]], None]
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
    if kind == "progress":
        on_progress(stages_from(item.progress.stages))
    if kind == "finished":
        on_progress(stages_from(item.finished.stages))
        return item.finished
    return None
