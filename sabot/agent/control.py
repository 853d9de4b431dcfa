"""The control port: AgentControl, health and reflection, on the daemon's loop.

What concerns the agent is answered here; jobs are handed to the job driver. Every error leaves as a status with the
failure itself in the trailing metadata; one that is not Sabot's own is a bug, is logged with its traceback and leaves
as InternalError.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol

import grpc
import pyarrow as pa
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sabot.agent.cluster.membership import Membership
from sabot.agent.cluster.peers import Peers
from sabot.agent.context import AgentContext
from sabot.agent.process import resident_bytes
from sabot.config import JobsSection
from sabot.errors import InternalError, SabotError, UsageError
from sabot.slots.manager import TIMELINE_ROWS_MAX
from sabot.wire import agent_pb2, agent_pb2_grpc
from sabot.wire.addresses import control_server_options, format_address
from sabot.wire.convert import from_agent, to_agent
from sabot.wire.rpc_errors import status_of
from sabot.wire.versions import check_versions, my_versions

SERVICE = "sabot.v1.AgentControl"
TIMELINE_BYTES_MAX = 32 * 1024 * 1024

log = logging.getLogger("sabot.agent")


class Sources(Protocol):
    """What the daemon needs to answer questions about files."""

    async def describe(self, request: agent_pb2.DescribeSourceRequest) -> agent_pb2.DescribeSourceReply: ...
    async def prune(self, request: agent_pb2.PruneSourceRequest) -> agent_pb2.PruneSourceReply: ...
    async def see_path(self, request: agent_pb2.SeePathRequest) -> agent_pb2.SeePathReply: ...


class Jobs(Protocol):
    """What the daemon needs of a job driver; every coroutine runs on its loop."""

    @property
    def sources(self) -> Sources: ...
    @property
    def config(self) -> JobsSection: ...
    def submit(self, request: agent_pb2.SubmitJobRequest) -> AsyncGenerator[agent_pb2.JobEvent, None]: ...
    async def prepare(self, request: agent_pb2.PrepareJobRequest) -> agent_pb2.PrepareJobReply: ...
    async def run_task(self, request: agent_pb2.RunTaskRequest) -> agent_pb2.RunTaskReply: ...
    async def reown(self, request: agent_pb2.ReownJobRequest) -> agent_pb2.ReownJobReply: ...
    def record(self, request: agent_pb2.RecordJobRequest) -> agent_pb2.RecordJobReply: ...
    def take_over(self, request: agent_pb2.TakeOverJobRequest) -> agent_pb2.TakeOverJobReply: ...
    async def confirm(self, request: agent_pb2.ConfirmJobRequest) -> agent_pb2.ConfirmJobReply: ...
    def grant_publish(self, request: agent_pb2.GrantPublishRequest) -> agent_pb2.GrantPublishReply: ...
    async def end_job(self, request: agent_pb2.EndJobRequest) -> agent_pb2.EndJobReply: ...
    def check_job(self, request: agent_pb2.CheckJobRequest) -> agent_pb2.CheckJobReply: ...
    async def release(self, request: agent_pb2.ReleaseJobRequest) -> agent_pb2.ReleaseJobReply: ...
    def list_jobs(self, request: agent_pb2.ListJobsRequest) -> agent_pb2.ListJobsReply: ...
    async def cancel(self, request: agent_pb2.CancelJobRequest) -> agent_pb2.CancelJobReply: ...
    def keep_uploads(self, request: agent_pb2.KeepUploadsRequest) -> agent_pb2.KeepUploadsReply: ...
    async def learn_schema(self, request: agent_pb2.LearnSchemaRequest) -> agent_pb2.LearnSchemaReply: ...
    def jobs_running(self) -> int: ...
    def tasks_running(self) -> int: ...
    async def drain(self, deadline_s: float) -> None: ...
    async def close(self) -> None: ...


def _typed(method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any, Any], Awaitable[Any]]:
    """A method of the service from one that takes the request alone and may raise."""

    @functools.wraps(method)
    async def answer(self: Any, request: Any, call: Any) -> Any:
        try:
            return await method(self, request)
        except Exception as error:
            await _abort(call, method.__name__, error)

    return answer


async def _abort(call: Any, method: str, error: Exception) -> None:
    if not isinstance(error, SabotError):
        log.error("bug method=%s", method, exc_info=error)
        error = InternalError(
            f"{method} failed: {type(error).__name__}: {error}; please report it with the agent's log"
        )
    code, details, metadata = status_of(error)
    await call.abort(code, details, metadata)


class ControlService(agent_pb2_grpc.AgentControlServicer):
    """Answers AgentControl for one agent; `request_stop` starts its drain."""

    def __init__(
        self,
        *,
        context: AgentContext,
        membership: Membership,
        peers: Peers,
        jobs: Jobs,
        state_dir: str,
        request_stop: Callable[[], None],
    ) -> None:
        self._context = context
        self._membership = membership
        self._peers = peers
        self._jobs = jobs
        self._state_dir = state_dir
        self._request_stop = request_stop
        self._started_s = time.monotonic()

    @_typed
    async def Hello(self, request: agent_pb2.HelloRequest) -> agent_pb2.HelloReply:
        check_versions(request.versions, peer="the caller")
        members = [to_agent(member) for member in self._membership.members()]
        return agent_pb2.HelloReply(
            versions=my_versions(),
            agent=to_agent(self._membership.me),
            members=members,
            broadcast_bytes_max=self._jobs.config.broadcast_bytes_max,
            peer_deadline_s=self._jobs.config.peer_deadline_s,
        )

    @_typed
    async def GetStatus(self, request: agent_pb2.StatusRequest) -> agent_pb2.StatusReply:
        return agent_pb2.StatusReply(
            agent=to_agent(self._membership.me),
            versions=my_versions(),
            uptime_s=time.monotonic() - self._started_s,
            insecure=self._context.insecure,
            resident_bytes=resident_bytes(),
            jobs_running=self._jobs.jobs_running(),
            tasks_running=self._jobs.tasks_running(),
            queue_depth=self._context.task_slot_manager.get_queue_depth(),
            state_dir=self._state_dir,
            stored_bytes=self._context.shuffle_transport.stats()["stored_bytes"],
        )

    @_typed
    async def ListAgents(self, request: agent_pb2.ListAgentsRequest) -> agent_pb2.ListAgentsReply:
        return agent_pb2.ListAgentsReply(agents=[to_agent(member) for member in self._membership.members()])

    @_typed
    async def GetSlots(self, request: agent_pb2.SlotsRequest) -> agent_pb2.SlotsReply:
        return self._slots()

    @_typed
    async def SetSlots(self, request: agent_pb2.SetSlotsRequest) -> agent_pb2.SlotsReply:
        # A slot that goes finishes its morsel first, which may take as long as the user's function does.
        await asyncio.to_thread(self._context.scale_slots, request.num_slots)
        await self._peers.carry_out(self._membership.on_slots(self._context.task_slot_manager.get_num_slots()))
        return self._slots()

    @_typed
    async def GetTimeline(self, request: agent_pb2.TimelineRequest) -> agent_pb2.TimelineReply:
        # Up to some hundred thousand rows are made for it, which would hold up the loop.
        return await asyncio.to_thread(self._timeline, request.morsels_max)

    @_typed
    async def Stop(self, request: agent_pb2.StopRequest) -> agent_pb2.StopReply:
        self._request_stop()
        return agent_pb2.StopReply()

    @_typed
    async def Join(self, request: agent_pb2.JoinRequest) -> agent_pb2.JoinReply:
        newcomer = from_agent(request.agent)
        check_versions(request.versions, peer=f"agent {newcomer.agent_id} at {newcomer.control_address}")
        members = await self._peers.on_join(newcomer, forwarded=request.forwarded)
        return agent_pb2.JoinReply(members=[to_agent(member) for member in members])

    @_typed
    async def Leave(self, request: agent_pb2.LeaveRequest) -> agent_pb2.LeaveReply:
        leaver = from_agent(request.agent)
        self._membership.on_leave(leaver)
        log.info("left agent_id=%s address=%s", leaver.agent_id, leaver.control_address)
        return agent_pb2.LeaveReply()

    @_typed
    async def DescribeSource(self, request: agent_pb2.DescribeSourceRequest) -> agent_pb2.DescribeSourceReply:
        return await self._jobs.sources.describe(request)

    @_typed
    async def PruneSource(self, request: agent_pb2.PruneSourceRequest) -> agent_pb2.PruneSourceReply:
        return await self._jobs.sources.prune(request)

    @_typed
    async def SeePath(self, request: agent_pb2.SeePathRequest) -> agent_pb2.SeePathReply:
        return await self._jobs.sources.see_path(request)

    @_typed
    async def LearnSchema(self, request: agent_pb2.LearnSchemaRequest) -> agent_pb2.LearnSchemaReply:
        return await self._jobs.learn_schema(request)

    async def SubmitJob(self, request: agent_pb2.SubmitJobRequest, call: Any) -> AsyncIterator[agent_pb2.JobEvent]:
        try:
            check_versions(request.versions, peer="the client")
            async with aclosing(self._jobs.submit(request)) as events:
                async for event in events:
                    yield event
        except Exception as error:
            await _abort(call, "SubmitJob", error)

    @_typed
    async def ReleaseJob(self, request: agent_pb2.ReleaseJobRequest) -> agent_pb2.ReleaseJobReply:
        return await self._jobs.release(request)

    @_typed
    async def ListJobs(self, request: agent_pb2.ListJobsRequest) -> agent_pb2.ListJobsReply:
        return self._jobs.list_jobs(request)

    @_typed
    async def CancelJob(self, request: agent_pb2.CancelJobRequest) -> agent_pb2.CancelJobReply:
        return await self._jobs.cancel(request)

    @_typed
    async def KeepUploads(self, request: agent_pb2.KeepUploadsRequest) -> agent_pb2.KeepUploadsReply:
        return self._jobs.keep_uploads(request)

    @_typed
    async def PrepareJob(self, request: agent_pb2.PrepareJobRequest) -> agent_pb2.PrepareJobReply:
        return await self._jobs.prepare(request)

    @_typed
    async def RunTask(self, request: agent_pb2.RunTaskRequest) -> agent_pb2.RunTaskReply:
        return await self._jobs.run_task(request)

    @_typed
    async def ReownJob(self, request: agent_pb2.ReownJobRequest) -> agent_pb2.ReownJobReply:
        return await self._jobs.reown(request)

    @_typed
    async def RecordJob(self, request: agent_pb2.RecordJobRequest) -> agent_pb2.RecordJobReply:
        return self._jobs.record(request)

    @_typed
    async def TakeOverJob(self, request: agent_pb2.TakeOverJobRequest) -> agent_pb2.TakeOverJobReply:
        return self._jobs.take_over(request)

    @_typed
    async def ConfirmJob(self, request: agent_pb2.ConfirmJobRequest) -> agent_pb2.ConfirmJobReply:
        return await self._jobs.confirm(request)

    @_typed
    async def GrantPublish(self, request: agent_pb2.GrantPublishRequest) -> agent_pb2.GrantPublishReply:
        return self._jobs.grant_publish(request)

    @_typed
    async def CheckJob(self, request: agent_pb2.CheckJobRequest) -> agent_pb2.CheckJobReply:
        return self._jobs.check_job(request)

    @_typed
    async def EndJob(self, request: agent_pb2.EndJobRequest) -> agent_pb2.EndJobReply:
        return await self._jobs.end_job(request)

    def _timeline(self, morsels_max: int) -> agent_pb2.TimelineReply:
        asked = TIMELINE_ROWS_MAX if morsels_max <= 0 else min(morsels_max, TIMELINE_ROWS_MAX)
        table = self._context.get_timeline(morsels_max=asked)
        # What the names and the rows come to is a third of the largest message; the latest rows are kept.
        if table.nbytes > TIMELINE_BYTES_MAX:
            table = table.slice(table.num_rows - table.num_rows * TIMELINE_BYTES_MAX // table.nbytes)
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
        return agent_pb2.TimelineReply(arrow_stream=stream.getvalue().to_pybytes())

    def _slots(self) -> agent_pb2.SlotsReply:
        manager = self._context.task_slot_manager
        return agent_pb2.SlotsReply(
            num_slots=manager.get_num_slots(),
            available_slots=manager.get_available_slots(),
            queue_depth=manager.get_queue_depth(),
            slots=[agent_pb2.SlotStats(**slot) for slot in manager.get_slot_stats()],
        )


class ControlServer:
    """The gRPC server: bound when made, serving after `start`, gone after `stop`."""

    def __init__(self, host: str, port: int) -> None:
        self._server = grpc.aio.server(options=control_server_options())
        self._health = health.aio.HealthServicer()
        address = format_address(host, port)
        try:
            self.port: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise UsageError(
                f"control port {address} cannot be opened; choose another one (flag --control-port, key "
                "agent.control_port; 0: any free one)",
                address=address,
            ) from error

    async def start(self, service: ControlService) -> None:
        """Answers calls; health says NOT_SERVING until `set_serving`."""
        agent_pb2_grpc.add_AgentControlServicer_to_server(service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        await self.set_serving(False)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 says of the whole server and of AgentControl."""
        kinds = health_pb2.HealthCheckResponse
        status = kinds.SERVING if serving else kinds.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Takes no more calls, and ends those that have not ended after `grace_s`."""
        await self._server.stop(grace_s)
