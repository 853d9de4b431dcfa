"""Uses the folder that a job writes to in a thread, one thing after the other. Used on the loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pyarrow as pa

from sabot.agent.coordination import job_events as ev
from sabot.agent.files.output_folder import OutputFolder
from sabot.agent.jobs.source_desk import SourceDesk
from sabot.agent.tasks.file_output import check_writes
from sabot.dataflow.stage import WriteOutput
from sabot.wire.failure import to_failure
from sabot.wire.member import Member


class JobFolder:
    """`post` gets what came of each use. None is ever cancelled: a discard comes after one, not in its midst."""

    def __init__(
        self,
        job_id: str,
        epoch: int,
        *,
        sources: SourceDesk,
        post: Callable[[ev.Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._job_id = job_id
        self._epoch = epoch
        self._sources = sources
        self._post = post
        self._spawn = spawn
        self._folder: OutputFolder | None = None
        self._turn = asyncio.Lock()

    def open(self, output: WriteOutput, schema: pa.Schema, agents: Sequence[Member]) -> None:
        """Fails where nothing can be written so or there, or where not all of the agents see the folder."""
        folder = OutputFolder(output.folder, self._job_id, self._epoch, existing=output.existing_data_behavior)
        self._folder = folder

        async def opened() -> None:
            await asyncio.to_thread(check_writes, output, schema)
            await asyncio.to_thread(folder.open)
            await self._sources.check_all_see(str(folder.hidden), agents)

        self._spawn(self._use(opened, ev.FolderOpened()))

    def publish(self, files: Sequence[str]) -> None:
        assert self._folder is not None, "published before it was opened"
        folder = self._folder
        self._spawn(self._use(lambda: asyncio.to_thread(folder.publish, files), ev.FolderPublished()))

    def discard(self) -> None:
        """Removes what is not published; harmless where nothing is there."""
        if self._folder is not None:
            folder = self._folder
            self._spawn(self._use(lambda: asyncio.to_thread(folder.discard), None))

    async def _use(self, use: Callable[[], Coroutine[Any, Any, None]], done: ev.Event | None) -> None:
        try:
            async with self._turn:
                await use()
        except Exception as error:
            self._post(ev.FolderFailed(failure=to_failure(error)))
        else:
            if done is not None:
                self._post(done)
