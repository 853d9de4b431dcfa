"""Uses the folder that a job writes to in a thread, one thing after the other. Used on the loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from sabot.agent import job_events as ev
from sabot.agent.output_folder import OutputFolder
from sabot.wire.failure import to_failure


class JobFolder:
    """`post` gets what came of each use. None is ever cancelled: a discard comes after one, not in its midst."""

    def __init__(
        self,
        job_id: str,
        epoch: int,
        *,
        post: Callable[[ev.Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._job_id = job_id
        self._epoch = epoch
        self._post = post
        self._spawn = spawn
        self._folder: OutputFolder | None = None
        self._turn = asyncio.Lock()

    def open(self, folder: str) -> None:
        self._folder = OutputFolder(folder, self._job_id, self._epoch)
        self._spawn(self._use(self._folder.open, ev.FolderOpened()))

    def publish(self, files: Sequence[str]) -> None:
        assert self._folder is not None, "published before it was opened"
        folder = self._folder
        self._spawn(self._use(lambda: folder.publish(files), ev.FolderPublished()))

    def discard(self) -> None:
        """Removes what is not published; harmless where nothing is there."""
        if self._folder is not None:
            self._spawn(self._use(self._folder.discard, None))

    async def _use(self, use: Callable[[], None], done: ev.Event | None) -> None:
        try:
            async with self._turn:
                await asyncio.to_thread(use)
        except Exception as error:
            self._post(ev.FolderFailed(failure=to_failure(error)))
        else:
            if done is not None:
                self._post(done)
