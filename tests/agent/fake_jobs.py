"""A job driver whose work is what the test says, for tests of what surrounds jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from sabot.config import JobsSection
from sabot.wire import agent_pb2


class FakeJobs:
    """Refuses nothing and runs nothing; `error` is raised by every call, `on_drain` is awaited by drain."""

    def __init__(self) -> None:
        self.config = JobsSection()
        self.error: Exception | None = None
        self.on_drain: Callable[[], Awaitable[None]] | None = None
        self.running = 0
        self.drain_deadline_s: float | None = None
        self.closed = False
        self.submissions_closed = asyncio.Event()

    async def submit(self, request: agent_pb2.SubmitJobRequest) -> AsyncGenerator[agent_pb2.JobEvent, None]:
        try:
            yield agent_pb2.JobEvent(accepted=agent_pb2.JobAccepted())
            self._answer()
            await asyncio.get_running_loop().create_future()
        finally:
            self.submissions_closed.set()

    async def prepare(self, request: agent_pb2.PrepareJobRequest) -> agent_pb2.PrepareJobReply:
        self._answer()
        return agent_pb2.PrepareJobReply()

    async def run_task(self, request: agent_pb2.RunTaskRequest) -> agent_pb2.RunTaskReply:
        self._answer()
        return agent_pb2.RunTaskReply()

    async def reown(self, request: agent_pb2.ReownJobRequest) -> agent_pb2.ReownJobReply:
        self._answer()
        return agent_pb2.ReownJobReply()

    def record(self, request: agent_pb2.RecordJobRequest) -> agent_pb2.RecordJobReply:
        self._answer()
        return agent_pb2.RecordJobReply()

    def take_over(self, request: agent_pb2.TakeOverJobRequest) -> agent_pb2.TakeOverJobReply:
        self._answer()
        return agent_pb2.TakeOverJobReply()

    async def confirm(self, request: agent_pb2.ConfirmJobRequest) -> agent_pb2.ConfirmJobReply:
        self._answer()
        return agent_pb2.ConfirmJobReply()

    def grant_publish(self, request: agent_pb2.GrantPublishRequest) -> agent_pb2.GrantPublishReply:
        self._answer()
        return agent_pb2.GrantPublishReply()

    def check_job(self, request: agent_pb2.CheckJobRequest) -> agent_pb2.CheckJobReply:
        self._answer()
        return agent_pb2.CheckJobReply()

    async def end_job(self, request: agent_pb2.EndJobRequest) -> agent_pb2.EndJobReply:
        self._answer()
        return agent_pb2.EndJobReply()

    async def release(self, request: agent_pb2.ReleaseJobRequest) -> agent_pb2.ReleaseJobReply:
        self._answer()
        return agent_pb2.ReleaseJobReply()

    async def learn_schema(self, request: agent_pb2.LearnSchemaRequest) -> agent_pb2.LearnSchemaReply:
        self._answer()
        return agent_pb2.LearnSchemaReply()

    def list_jobs(self, request: agent_pb2.ListJobsRequest) -> agent_pb2.ListJobsReply:
        self._answer()
        return agent_pb2.ListJobsReply()

    async def cancel(self, request: agent_pb2.CancelJobRequest) -> agent_pb2.CancelJobReply:
        self._answer()
        return agent_pb2.CancelJobReply()

    def keep_uploads(self, request: agent_pb2.KeepUploadsRequest) -> agent_pb2.KeepUploadsReply:
        self._answer()
        return agent_pb2.KeepUploadsReply()

    @property
    def sources(self) -> FakeJobs:
        return self

    async def describe(self, request: agent_pb2.DescribeSourceRequest) -> agent_pb2.DescribeSourceReply:
        self._answer()
        return agent_pb2.DescribeSourceReply()

    async def prune(self, request: agent_pb2.PruneSourceRequest) -> agent_pb2.PruneSourceReply:
        self._answer()
        return agent_pb2.PruneSourceReply()

    async def see_path(self, request: agent_pb2.SeePathRequest) -> agent_pb2.SeePathReply:
        self._answer()
        return agent_pb2.SeePathReply()

    def jobs_running(self) -> int:
        return self.running

    def tasks_running(self) -> int:
        return self.running

    async def drain(self, deadline_s: float) -> None:
        self.drain_deadline_s = deadline_s
        if self.on_drain is not None:
            await self.on_drain()

    async def close(self) -> None:
        self.closed = True

    def _answer(self) -> None:
        if self.error is not None:
            raise self.error
