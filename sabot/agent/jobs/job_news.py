"""What a job's client is told: that the job is accepted, how far it is, and how it ended. Used on the loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from sabot.wire.agent_pb2 import JobAccepted, JobEvent, JobProgress, JobPublish, StageProgress

PROGRESS_EVERY_S = 0.2
_CONFIRM_WAIT_S = 5.0


class JobNews:
    """One stream of events for one reader."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()  # what is to be told does not wait for its turn among the progress
        self._publish_asked = False
        self._last: JobEvent | None = None
        self.end_told = False

    def changed(self) -> None:
        """The job has moved on."""
        self._news.set()

    def ask_to_publish(self) -> None:
        self._publish_asked = True
        self._hurry.set()
        self._news.set()

    def end(self, event: JobEvent) -> None:
        """The last thing to be told."""
        self._last = event
        self._hurry.set()
        self._news.set()

    async def events(
        self, accepted: JobAccepted, progress: Callable[[], Sequence[StageProgress]], let_go: asyncio.Event
    ) -> AsyncGenerator[JobEvent, None]:
        """Accepted, then progress at most five times a second, then how it ended.

        Then it waits until the reader has confirmed that, `let_go`, or closes it.
        """
        yield JobEvent(accepted=accepted)
        while True:
            await self._news.wait()
            self._news.clear()
            if self._last is not None:
                break
            if self._publish_asked:
                self._publish_asked = False
                self._hurry.clear()
                yield JobEvent(publish=JobPublish())
            else:
                yield JobEvent(progress=JobProgress(stages=progress()))
                await wait_at_most(self._hurry, PROGRESS_EVERY_S)
        self.end_told = True
        yield self._last
        await wait_at_most(let_go, _CONFIRM_WAIT_S)


async def wait_at_most(event: asyncio.Event, timeout_s: float) -> None:
    if event.is_set():
        return
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
