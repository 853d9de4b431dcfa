"""The client's side of one agent's control port.

Every call has a deadline and raises one of sabot.errors: the agent's own failure where it sent one, else PeerLost,
PeerRefused or InternalError with the address. Nothing here retries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import grpc

from sabot.errors import InternalError, JobCancelled, LimitReached, PeerLost, PeerRefused, SabotError
from sabot.wire import agent_pb2, agent_pb2_grpc
from sabot.wire.addresses import control_channel_options
from sabot.wire.failure import from_failure
from sabot.wire.versions import check_versions, my_versions

_FAILURE_KEY = "sabot-failure-bin"
_RELEASE_TIMEOUT_S = 2.0


class ControlClient:
    """Calls the agent at `address`; `timeout_s` bounds every call but a running job's stream."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._channel = grpc.insecure_channel(address, options=control_channel_options())
        self._stub = agent_pb2_grpc.AgentControlStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def hello(self) -> agent_pb2.HelloReply:
        """Both sides' versions are checked, by both sides."""
        reply = self._call(self._stub.Hello, agent_pb2.HelloRequest(versions=my_versions()))
        check_versions(reply.versions, peer=f"agent {self.address}")
        return reply

    def list_agents(self) -> Sequence[agent_pb2.Agent]:
        return self._call(self._stub.ListAgents, agent_pb2.ListAgentsRequest()).agents

    def get_slots(self) -> agent_pb2.SlotsReply:
        return self._call(self._stub.GetSlots, agent_pb2.SlotsRequest())

    def describe_source(self, file_format: str, paths: Sequence[str]) -> agent_pb2.DescribeSourceReply:
        request = agent_pb2.DescribeSourceRequest(format=file_format, paths=paths)
        return self._call(self._stub.DescribeSource, request)

    def submit_job(self, job_id: str, plan: bytes) -> JobStream:
        """Starts the job; its events come from the stream, which must be closed."""
        request = agent_pb2.SubmitJobRequest(job_id=job_id, plan=plan, versions=my_versions())
        return JobStream(self._stub.SubmitJob(request), self)

    def release_job(self, job_id: str) -> None:
        """Frees what a job keeps; an agent that is gone has freed it already, so this raises nothing."""
        with suppress(Exception):  # at the end of the program gRPC may be half gone, which it says in many ways
            self._stub.ReleaseJob(agent_pb2.ReleaseJobRequest(job_id=job_id), timeout=_RELEASE_TIMEOUT_S)

    def end_job(self, job_id: str) -> None:
        """Drops what a job that was never submitted has on this agent; raises nothing."""
        with suppress(Exception):
            self._stub.EndJob(agent_pb2.EndJobRequest(job_id=job_id), timeout=_RELEASE_TIMEOUT_S)

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self.timeout_s)
        except grpc.RpcError as error:
            raise self.error_of(error) from None

    def error_of(self, error: grpc.RpcError) -> BaseException:
        """What the agent or the connection to it has to say."""
        for key, value in error.trailing_metadata() or ():
            if key == _FAILURE_KEY:
                return from_failure(agent_pb2.Failure.FromString(value))
        return self._error_of_code(error.code(), error.details())

    def _error_of_code(self, code: grpc.StatusCode, details: str) -> SabotError:
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return self.lost(f"did not answer within {self.timeout_s:g} s")
        if code == grpc.StatusCode.UNAVAILABLE:
            return self.lost(f"cannot be reached (tried for at most {self.timeout_s:g} s: {details})")
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return PeerRefused(
                f"{self.address} is no control port of this version of Sabot; give the control port of an agent "
                "(sabot-agent start prints it, 8815 by default), not its Flight or HTTP port",
                address=self.address,
            )
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
            return LimitReached(f"agent {self.address} refused a message as too large: {details}", address=self.address)
        if code == grpc.StatusCode.CANCELLED:
            return JobCancelled(f"the call to agent {self.address} was cancelled")
        return InternalError(f"agent {self.address} failed with {code.name}: {details}; see its log and report it")

    def lost(self, how: str) -> PeerLost:
        return PeerLost(
            f"agent {self.address} {how}; see whether it runs (sabot-agent status --agent {self.address}), "
            "or start one with sabot-agent start",
            address=self.address,
            deadline_s=self.timeout_s,
        )


class JobStream:
    """The events of one submitted job; closing it before its end cancels the job."""

    def __init__(self, call: Any, control: ControlClient) -> None:
        self._call = call
        self._control = control

    def __iter__(self) -> Iterator[agent_pb2.JobEvent]:
        try:
            yield from self._call
        except grpc.RpcError as error:
            raise self._control.error_of(error) from None

    def close(self) -> None:
        self._call.cancel()
