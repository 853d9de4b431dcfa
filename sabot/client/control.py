"""The client's side of one agent's control port.

Every call has a deadline and raises one of sabot.errors: the agent's own failure where it sent one, else PeerLost,
PeerRefused or InternalError with the address. Nothing here retries.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import grpc

from sabot.wire import agent_pb2, agent_pb2_grpc
from sabot.wire.addresses import control_channel_options
from sabot.wire.convert import from_agent
from sabot.wire.member import Member
from sabot.wire.rpc_errors import error_of
from sabot.wire.versions import check_versions, my_versions

_RELEASE_TIMEOUT_S = 2.0


class ControlClient:
    """Calls the agent at `address`; `timeout_s` bounds every call but a running job's stream."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._channel = grpc.insecure_channel(address, options=control_channel_options())
        self._stub: Any = agent_pb2_grpc.AgentControlStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def hello(self) -> agent_pb2.HelloReply:
        """Both sides' versions are checked, by both sides."""
        reply: agent_pb2.HelloReply = self._call(self._stub.Hello, agent_pb2.HelloRequest(versions=my_versions()))
        check_versions(reply.versions, peer=f"agent {self.address}")
        return reply

    def list_agents(self, *, timeout_s: float | None = None) -> list[Member]:
        request = agent_pb2.ListAgentsRequest()
        reply: agent_pb2.ListAgentsReply = self._call(self._stub.ListAgents, request, timeout_s)
        return [from_agent(agent) for agent in reply.agents]

    def get_status(self) -> agent_pb2.StatusReply:
        reply: agent_pb2.StatusReply = self._call(self._stub.GetStatus, agent_pb2.StatusRequest())
        return reply

    def get_slots(self) -> agent_pb2.SlotsReply:
        reply: agent_pb2.SlotsReply = self._call(self._stub.GetSlots, agent_pb2.SlotsRequest())
        return reply

    def describe_source(self, request: bytes) -> agent_pb2.DescribeSourceReply:
        """What an agent finds under the paths of a packed SourceRequest."""
        reply: agent_pb2.DescribeSourceReply = self._call(
            self._stub.DescribeSource, agent_pb2.DescribeSourceRequest(request=request)
        )
        return reply

    def prune_source(self, request: bytes) -> agent_pb2.PruneSourceReply:
        """What a filter leaves of listed files, by a packed PruneRequest."""
        reply: agent_pb2.PruneSourceReply = self._call(
            self._stub.PruneSource, agent_pb2.PruneSourceRequest(request=request)
        )
        return reply

    def learn_schema(self, request: agent_pb2.LearnSchemaRequest, *, timeout_s: float) -> agent_pb2.LearnSchemaReply:
        """What a function returns for no rows; what it raised there is in the reply."""
        try:
            reply: agent_pb2.LearnSchemaReply = self._stub.LearnSchema(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise error_of(error, address=self.address, deadline_s=timeout_s) from None
        return reply

    def submit_job(
        self, job_id: str, plan: bytes, *, epoch: int = 0, agents: Sequence[agent_pb2.Agent] = ()
    ) -> JobStream:
        """The job's events; it is submitted when they are first asked for. With an `epoch` above 0 the agent takes the
        job over from an earlier coordinator, with `agents`.
        """
        request = agent_pb2.SubmitJobRequest(
            job_id=job_id, plan=plan, versions=my_versions(), epoch=epoch, agents=agents
        )
        return JobStream(lambda: self._stub.SubmitJob(request), self.error_of)

    def confirm_job(self, job_id: str, epoch: int) -> None:
        """The job has ended here, too; a coordinator that is gone is missed by the agents, so this raises nothing."""
        with suppress(Exception):
            request = agent_pb2.ConfirmJobRequest(job_id=job_id, epoch=epoch)
            self._stub.ConfirmJob(request, timeout=_RELEASE_TIMEOUT_S)

    def grant_publish(self, job_id: str, epoch: int) -> None:
        """Lets the coordinator of that epoch have the job's files appear."""
        self._call(self._stub.GrantPublish, agent_pb2.GrantPublishRequest(job_id=job_id, epoch=epoch))

    def cancel_job(self, job_id: str) -> None:
        """Ends a job that the agent coordinates; one that is gone ends it by itself, so this raises nothing."""
        with suppress(Exception):
            request = agent_pb2.CancelJobRequest(job_id=job_id, reason="by its client")
            self._stub.CancelJob(request, timeout=_RELEASE_TIMEOUT_S)

    def release_job(self, job_id: str) -> None:
        """Frees what a job keeps; an agent that is gone has freed it already, so this raises nothing."""
        with suppress(Exception):  # at the end of the program gRPC may be half gone, which it says in many ways
            self._stub.ReleaseJob(agent_pb2.ReleaseJobRequest(job_id=job_id), timeout=_RELEASE_TIMEOUT_S)

    def end_job(self, job_id: str) -> None:
        """Drops what a job that was never submitted has on this agent; raises nothing."""
        with suppress(Exception):
            self._stub.EndJob(agent_pb2.EndJobRequest(job_id=job_id), timeout=_RELEASE_TIMEOUT_S)

    def _call(self, method: Callable[..., Any], request: Any, timeout_s: float | None = None) -> Any:
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise error_of(error, address=self.address, deadline_s=timeout_s) from None

    def error_of(self, error: grpc.RpcError) -> BaseException:
        """What the agent or the connection to it has to say."""
        return error_of(error, address=self.address, deadline_s=self.timeout_s)


class JobStream:
    """The events of one job, for one thread to read and any other to close. Closed before its end, the job ends unless
    another agent takes it over.

    The reading thread submits the job, so that Ctrl-C, which strikes the main thread between any two lines, cannot lose
    a job that has just been submitted.
    """

    def __init__(self, submit: Callable[[], Any], error_of: Callable[[grpc.RpcError], BaseException]) -> None:
        self._submit = submit
        self._error_of = error_of
        self._lock = threading.Lock()
        self._call: Any = None  # guarded by _lock, as is _closed
        self._closed = False

    def __iter__(self) -> Iterator[agent_pb2.JobEvent]:
        with self._lock:
            if self._closed:
                return
            self._call = self._submit()
        try:
            yield from self._call
        except grpc.RpcError as error:
            raise self._error_of(error) from None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._call is not None:
                self._call.cancel()
