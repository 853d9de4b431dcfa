"""A gRPC server that answers an agent's control calls as a test tells it, to see what clients make of the answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import cloudpickle
import grpc

from sabot.dataflow.stage import JobPlan
from sabot.wire import agent_pb2, agent_pb2_grpc
from sabot.wire.failure import to_failure
from sabot.wire.versions import my_versions

Events = Iterator[agent_pb2.JobEvent]


class PlainAgent(agent_pb2_grpc.AgentControlServicer):
    """`job` makes the events of a submitted job. If `lingers`, a job goes on after them until the client ends it."""

    def __init__(self) -> None:
        self.agent = agent_pb2.Agent(
            agent_id="plain", incarnation=7, flight_address="127.0.0.1:9", http_address="127.0.0.1:9", slots=1
        )
        self.versions = my_versions()
        self.refusal: Exception | None = None
        self.job: Callable[[], Events] = lambda: iter(())
        self.plans: list[JobPlan] = []
        self.lingers = False
        self._never = threading.Event()
        self.started = threading.Event()
        self.cancelled = threading.Event()
        self.released: list[str] = []
        self.ended: list[str] = []

    def Hello(self, request: Any, context: Any) -> agent_pb2.HelloReply:  # noqa: N802
        if self.refusal is not None:
            failure = to_failure(self.refusal).SerializeToString()
            context.set_trailing_metadata((("sabot-failure-bin", failure),))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(self.refusal))
        return agent_pb2.HelloReply(versions=self.versions, agent=self.agent, members=[self.agent])

    def ListAgents(self, request: Any, context: Any) -> agent_pb2.ListAgentsReply:  # noqa: N802
        return agent_pb2.ListAgentsReply(agents=[self.agent])

    def SubmitJob(self, request: Any, context: Any) -> Events:  # noqa: N802
        self.plans.append(cloudpickle.loads(request.plan))
        self.started.set()
        yield from self.job()
        if self.lingers:
            while context.is_active():  # gRPC calls no callback while a handler runs
                self._never.wait(0.01)
            self.cancelled.set()

    def ReleaseJob(self, request: Any, context: Any) -> agent_pb2.ReleaseJobReply:  # noqa: N802
        self.released.append(request.job_id)
        return agent_pb2.ReleaseJobReply()

    def EndJob(self, request: Any, context: Any) -> agent_pb2.EndJobReply:  # noqa: N802
        self.ended.append(request.job_id)
        return agent_pb2.EndJobReply()


@contextmanager
def serving(agent: PlainAgent) -> Iterator[PlainAgent]:
    """The agent on a free port of this machine, its `control_address` set."""
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        agent_pb2_grpc.add_AgentControlServicer_to_server(agent, server)
        port = server.add_insecure_port("127.0.0.1:0")
        agent.agent.control_address = f"127.0.0.1:{port}"
        server.start()
        try:
            yield agent
        finally:
            server.stop(0).wait()
