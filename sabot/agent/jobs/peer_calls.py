"""How a job's commands reach its agents: this one directly, the others over their control ports.

A call ends with its reply or with one of sabot.errors that names the agent; what an agent raised arrives as it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from sabot.errors import PeerError, PeerLost, PeerRefused
from sabot.wire.addresses import control_channel_options
from sabot.wire.agent_pb2 import (
    CheckJobReply,
    CheckJobRequest,
    EndJobRequest,
    Failure,
    KeepUploadsRequest,
    PrepareJobRequest,
    RecordJobRequest,
    ReownJobRequest,
    RunTaskReply,
    RunTaskRequest,
    SeePathRequest,
    TakeOverJobReply,
    TakeOverJobRequest,
)
from sabot.wire.agent_pb2_grpc import AgentControlStub
from sabot.wire.failure import from_failure
from sabot.wire.member import Member
from sabot.wire.rpc_errors import FAILURE_KEY

_LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
# A channel to an agent that was away must not wait minutes before it looks again.
_RECONNECT = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]


class LocalAgent(Protocol):
    """The same commands on this agent."""

    async def prepare(self, request: PrepareJobRequest) -> Any: ...
    async def run_task(self, request: RunTaskRequest) -> RunTaskReply: ...
    async def reown(self, request: ReownJobRequest) -> Any: ...
    def record(self, request: RecordJobRequest) -> Any: ...
    def take_over(self, request: TakeOverJobRequest) -> TakeOverJobReply: ...
    async def end_job(self, request: EndJobRequest) -> Any: ...
    def keep_uploads(self, request: KeepUploadsRequest) -> Any: ...


@dataclass(slots=True, eq=False)
class _Line:
    """A channel with the stub of all its calls, and how many use it: closing it would cancel them."""

    channel: grpc.aio.Channel
    stub: AgentControlStub
    calls: int = 0
    broken: bool = False


class PeerCalls:
    """Calls agents; channels are opened at first use and kept until `close`, or until they break or are silent."""

    def __init__(self, local: LocalAgent, identity: tuple[str, int]) -> None:
        self._local = local
        self._identity = identity
        self._lines: dict[tuple[str, int], _Line] = {}
        self._lines_made = 0
        self._closing: set[asyncio.Future[None]] = set()

    async def prepare(self, member: Member, request: PrepareJobRequest, *, timeout_s: float) -> None:
        if member.identity == self._identity:
            await self._local.prepare(request)
        else:
            await self._call(member, "PrepareJob", request, timeout_s)

    async def reown(self, member: Member, request: ReownJobRequest, *, timeout_s: float) -> None:
        if member.identity == self._identity:
            await self._local.reown(request)
        else:
            await self._call(member, "ReownJob", request, timeout_s)

    async def record(self, member: Member, request: RecordJobRequest, *, timeout_s: float) -> None:
        if member.identity == self._identity:
            self._local.record(request)
        else:
            await self._call(member, "RecordJob", request, timeout_s)

    async def take_over(self, member: Member, request: TakeOverJobRequest, *, timeout_s: float) -> TakeOverJobReply:
        """The agent has another coordinator for the job from now on, and says what it knows of it."""
        if member.identity == self._identity:
            return self._local.take_over(request)
        reply: TakeOverJobReply = await self._call(member, "TakeOverJob", request, timeout_s)
        return reply

    async def run_task(self, member: Member, request: RunTaskRequest) -> RunTaskReply:
        """Waits as long as the task runs; whoever watches that the agent lives ends it by cancelling."""
        if member.identity == self._identity:
            return await self._local.run_task(request)
        reply: RunTaskReply = await self._call(member, "RunTask", request, None)
        return reply

    async def end_job(self, member: Member, request: EndJobRequest, *, timeout_s: float) -> None:
        if member.identity == self._identity:
            await self._local.end_job(request)
        else:
            await self._call(member, "EndJob", request, timeout_s)

    async def keep_uploads(self, member: Member, request: KeepUploadsRequest, *, timeout_s: float) -> None:
        if member.identity == self._identity:
            self._local.keep_uploads(request)
        else:
            await self._call(member, "KeepUploads", request, timeout_s)

    async def check_job(self, member: Member, request: CheckJobRequest, *, timeout_s: float) -> CheckJobReply:
        """Asks the coordinator `member` whether this agent still has a part in the job."""
        reply: CheckJobReply = await self._call(member, "CheckJob", request, timeout_s)
        return reply

    async def see_path(self, member: Member, request: SeePathRequest, *, timeout_s: float) -> bool:
        """Whether the path is there for another agent."""
        return bool((await self._call(member, "SeePath", request, timeout_s)).seen)

    async def close(self) -> None:
        lines, self._lines = list(self._lines.values()), {}
        for line in lines:
            self._close_soon(line.channel)
        await asyncio.gather(*self._closing)

    async def _call(self, member: Member, method: str, request: Any, timeout_s: float | None) -> Any:
        line = self._line_to(member)
        line.calls += 1
        try:
            return await getattr(line.stub, method)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            carried = _carried(error)
            if carried is None and error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                self._leave(member, line)
            raise carried or _error_of(error, member, method, timeout_s) from error
        except asyncio.CancelledError as error:
            caller = asyncio.current_task()
            if caller is None or caller.cancelling():
                raise
            # Not the caller but the channel has ended the call.
            raise PeerLost(
                f"the call of {method} to agent {member.agent_id} at {member.control_address} was broken off",
                agent=member.agent_id,
                address=member.control_address,
            ) from error
        finally:
            line.calls -= 1
            if line.broken and not line.calls:
                self._close_soon(line.channel)

    def _line_to(self, member: Member) -> _Line:
        line = self._lines.get(member.identity)
        if line is None:
            # Channels with equal options share a connection, hence one that means nothing to gRPC: a connection whose
            # packets were dropped tries again only after as long as it has been silent.
            self._lines_made += 1
            options = [*control_channel_options(), *_RECONNECT, ("sabot.line", self._lines_made)]
            channel = grpc.aio.insecure_channel(member.control_address, options=options)
            line = _Line(channel, AgentControlStub(channel))
            self._lines[member.identity] = line
        return line

    def _leave(self, member: Member, line: _Line) -> None:
        """The channel is broken, or silent: the next call makes another, and the last of its own closes it."""
        line.broken = True
        if self._lines.get(member.identity) is line:
            del self._lines[member.identity]

    def _close_soon(self, channel: grpc.aio.Channel) -> None:
        """By a task of its own: the call that found the channel broken may be cancelled."""
        closing = asyncio.ensure_future(channel.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _carried(error: grpc.aio.AioRpcError) -> Exception | None:
    """What the agent itself raised."""
    for key, value in error.trailing_metadata() or ():
        if key == FAILURE_KEY:
            carried = from_failure(Failure.FromString(value))
            return carried if isinstance(carried, Exception) else PeerError(str(carried))
    return None


def _error_of(error: grpc.aio.AioRpcError, member: Member, method: str, timeout_s: float | None) -> Exception:
    facts = {"agent": member.agent_id, "address": member.control_address}
    if error.code() in _LOST:
        within = f" within {timeout_s:g} s" if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and timeout_s else ""
        return PeerLost(
            f"agent {member.agent_id} at {member.control_address} did not answer {method}{within} ({error.details()}); "
            "see whether it still runs (sabot-agent agents), then run the job again",
            **facts,
        )
    return PeerRefused(
        f"agent {member.agent_id} at {member.control_address} refused {method}: {error.details()}; see its log", **facts
    )
