"""The control port of a daemon in this process, with jobs that do what the test says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sabot.agent.context import AgentContext
from sabot.agent.daemon import Daemon
from sabot.agent.state_dir import read_agent_file
from sabot.config import Config, load_config
from sabot.errors import InternalError, JobCancelled, LimitReached, PeerLost, PeerRefused, SabotError, UsageError
from sabot.wire import agent_pb2, agent_pb2_grpc
from sabot.wire.addresses import control_channel_options
from sabot.wire.convert import from_agent
from sabot.wire.rpc_errors import error_of
from sabot.wire.versions import PROTOCOL, my_versions
from tests.agent.fake_jobs import FakeJobs

DEADLINE_S = 20.0


class Running:
    """A daemon that serves, its jobs, and a channel to it."""

    def __init__(self, daemon: Daemon, jobs: FakeJobs, facts: dict[str, Any], channel: grpc.aio.Channel) -> None:
        self.daemon = daemon
        self.jobs = jobs
        self.facts = facts
        self.channel = channel
        self.stub = agent_pb2_grpc.AgentControlStub(channel)

    async def failure(self, method: str, request: Any) -> tuple[grpc.StatusCode, BaseException]:
        """The status and the error that a call ends with."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await getattr(self.stub, method)(request, timeout=DEADLINE_S)
        return raised.value.code(), error_of(raised.value, address="here", deadline_s=DEADLINE_S)

    async def healthz(self) -> int:
        """The status of the HTTP port's /healthz."""
        host, _, port = self.facts["http_address"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
        status = int((await reader.read()).split()[1])
        writer.close()
        await writer.wait_closed()
        return status

    async def health(self, service: str = "") -> str:
        stub = health_pb2_grpc.HealthStub(self.channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    flags = {"agent.port": 0, "agent.control_port": 0, "agent.http_port": 0, "slots.count": 1, "agent.id": "a"}
    return load_config(environment={}, flags={**flags, "agent.state_dir": str(tmp_path / "state")})


def live(config: Config, use: Callable[[Running], Awaitable[Any]]) -> tuple[int, Any]:
    """Runs a daemon until `use` has ended; the daemon's exit code, and what `use` gave."""

    async def run() -> tuple[int, Any]:
        jobs = FakeJobs()
        ready = asyncio.Event()
        lines: list[str] = []

        def announce(line: str) -> None:
            lines.append(line)
            if line.startswith("state "):
                ready.set()

        daemon = Daemon(config, announce=announce, make_jobs=lambda *_: jobs)
        life = asyncio.ensure_future(daemon.run())
        waiting = asyncio.ensure_future(ready.wait())
        await asyncio.wait({life, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            waiting.cancel()
            return await life, None
        facts: dict[str, Any] = dict(read_agent_file(Path(str(config.agent.state_dir))) or {})
        async with grpc.aio.insecure_channel(facts["control_address"], options=control_channel_options()) as channel:
            try:
                result = await asyncio.wait_for(use(Running(daemon, jobs, facts, channel)), DEADLINE_S)
            finally:
                daemon.stop()
                code = await life
        assert jobs.closed
        return code, result

    return asyncio.run(run())


def test_hello_gives_versions_and_members(config: Config) -> None:
    async def use(agent: Running) -> Any:
        return await agent.stub.Hello(agent_pb2.HelloRequest(versions=my_versions()))

    code, reply = live(config, use)
    assert code == 0
    assert reply.versions == my_versions()
    assert reply.agent.agent_id == "a"
    assert list(reply.members) == [reply.agent]


@pytest.mark.parametrize("method", ["Hello", "Join", "SubmitJob"])
def test_other_versions_are_refused_with_both_named(config: Config, method: str) -> None:
    theirs = my_versions()
    theirs.protocol = 99

    async def use(agent: Running) -> Any:
        if method == "SubmitJob":
            call = agent.stub.SubmitJob(agent_pb2.SubmitJobRequest(versions=theirs))
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call.read()
            return raised.value.code(), error_of(raised.value, address="here", deadline_s=1)
        me = (await agent.stub.ListAgents(agent_pb2.ListAgentsRequest())).agents[0]
        request = {
            "Hello": agent_pb2.HelloRequest(versions=theirs),
            "Join": agent_pb2.JoinRequest(versions=theirs, agent=me),
        }
        return await agent.failure(method, request[method])

    _, (code, error) = live(config, use)
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert isinstance(error, PeerRefused)
    assert f"protocol {PROTOCOL} here, 99 there" in error.message


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (UsageError, grpc.StatusCode.INVALID_ARGUMENT),
        (PeerLost, grpc.StatusCode.UNAVAILABLE),
        (LimitReached, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (JobCancelled, grpc.StatusCode.CANCELLED),
    ],
)
def test_error_of_the_jobs_arrives_as_itself(config: Config, kind: type[SabotError], code: grpc.StatusCode) -> None:
    async def use(agent: Running) -> Any:
        agent.jobs.error = kind("it broke; mend it", path="x")
        return await agent.failure("DescribeSource", agent_pb2.DescribeSourceRequest())

    _, (seen_code, seen) = live(config, use)
    assert seen_code == code
    assert (type(seen), seen.message, seen.facts) == (kind, "it broke; mend it", {"path": "x"})


@pytest.mark.parametrize("method", ["PrepareJob", "RunTask", "EndJob", "ReleaseJob"])
def test_every_call_about_jobs_reaches_them(config: Config, method: str) -> None:
    async def use(agent: Running) -> Any:
        request = getattr(agent_pb2, f"{method}Request")()
        reply = await getattr(agent.stub, method)(request)
        agent.jobs.error = UsageError("from the jobs")
        return reply, await agent.failure(method, request)

    _, (reply, (_, error)) = live(config, use)
    assert type(reply).__name__ == f"{method}Reply"
    assert str(error) == "from the jobs"


def test_bug_arrives_as_internal_error_and_is_logged_with_its_trace(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(agent: Running) -> Any:
        agent.jobs.error = KeyError("who")
        return await agent.failure("EndJob", agent_pb2.EndJobRequest())

    _, (code, error) = live(config, use)
    assert code == grpc.StatusCode.INTERNAL
    assert isinstance(error, InternalError)
    assert "KeyError: 'who'" in error.message
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError
    caplog.clear()  # its traceback holds the daemon's frames


def test_client_that_goes_away_ends_its_submission(config: Config) -> None:
    async def use(agent: Running) -> Any:
        call = agent.stub.SubmitJob(agent_pb2.SubmitJobRequest(versions=my_versions()))
        first = await call.read()
        call.cancel()
        await agent.jobs.submissions_closed.wait()
        return first.WhichOneof("event")

    assert live(config, use) == (0, "accepted")


def test_error_in_a_running_submission_arrives_as_itself(config: Config) -> None:
    async def use(agent: Running) -> Any:
        agent.jobs.error = UsageError("bad plan")
        call = agent.stub.SubmitJob(agent_pb2.SubmitJobRequest(versions=my_versions()))
        await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        return error_of(raised.value, address="here", deadline_s=1)

    assert isinstance(live(config, use)[1], UsageError)


@pytest.mark.parametrize("number", [0, -1, 5000])
def test_number_of_slots_that_cannot_be_is_refused(config: Config, number: int) -> None:
    async def use(agent: Running) -> Any:
        return await agent.failure("SetSlots", agent_pb2.SetSlotsRequest(num_slots=number))

    _, (code, error) = live(config, use)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(error, UsageError)
    assert "1 to 1024" in error.message


def test_slots_are_set_and_shown(config: Config) -> None:
    async def use(agent: Running) -> Any:
        reply = await agent.stub.SetSlots(agent_pb2.SetSlotsRequest(num_slots=3))
        members = (await agent.stub.ListAgents(agent_pb2.ListAgentsRequest())).agents
        return reply, (await agent.stub.GetSlots(agent_pb2.SlotsRequest())), members

    _, (changed, shown, (me,)) = live(config, use)
    assert changed.num_slots == shown.num_slots == len(shown.slots) == me.slots == 3


def test_timeline_is_an_arrow_stream_of_bounded_length(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async def rows(agent: Running, morsels_max: int) -> int:
        reply = await agent.stub.GetTimeline(agent_pb2.TimelineRequest(morsels_max=morsels_max))
        with pa.ipc.open_stream(reply.arrow_stream) as reader:
            return int(reader.read_all().num_rows)

    async def use(agent: Running) -> list[int]:
        manager = AgentContext.get_instance().task_slot_manager
        for _ in range(5):
            await asyncio.wrap_future(manager.call_in_slot(int))
        found = [await rows(agent, morsels_max) for morsels_max in (0, 2, -1)]
        monkeypatch.setattr("sabot.agent.control.TIMELINE_BYTES_MAX", 150)
        return [*found, await rows(agent, 0)]

    _, (whole, two, negative, cut) = live(config, use)
    assert (whole, two, negative) == (5, 2, 5)
    assert 0 < cut < 5


def test_status_says_what_the_jobs_say(config: Config) -> None:
    async def use(agent: Running) -> Any:
        agent.jobs.running = 2
        status = await agent.stub.GetStatus(agent_pb2.StatusRequest())
        agent.jobs.running = 0
        return status

    _, status = live(config, use)
    assert (status.jobs_running, status.tasks_running, status.stored_bytes) == (2, 2, 0)
    assert status.state_dir == config.agent.state_dir
    assert status.resident_bytes > 0


def test_member_without_a_name_is_refused(config: Config) -> None:
    async def use(agent: Running) -> Any:
        return await agent.failure("Join", agent_pb2.JoinRequest(versions=my_versions()))

    assert isinstance(live(config, use)[1][1], PeerRefused)


def test_goodbye_of_a_stranger_changes_nothing(config: Config) -> None:
    async def use(agent: Running) -> Any:
        me = (await agent.stub.ListAgents(agent_pb2.ListAgentsRequest())).agents[0]
        stranger = agent_pb2.Agent()
        stranger.CopyFrom(me)
        stranger.agent_id = "x"
        await agent.stub.Leave(agent_pb2.LeaveRequest(agent=stranger))
        return (await agent.stub.ListAgents(agent_pb2.ListAgentsRequest())).agents

    assert [member.agent_id for member in live(config, use)[1]] == ["a"]


def test_health_and_reflection_know_the_service(config: Config) -> None:
    async def use(agent: Running) -> Any:
        stub = reflection_pb2_grpc.ServerReflectionStub(agent.channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        services = {service.name for service in (await call.read()).list_services_response.service}
        call.cancel()
        return services, await agent.health(), await agent.health("sabot.v1.AgentControl"), await agent.healthz()

    _, (services, whole, service, healthz) = live(config, use)
    assert {"sabot.v1.AgentControl", "grpc.health.v1.Health"} <= services
    assert (whole, service, healthz) == ("SERVING", "SERVING", 200)


def test_draining_agent_says_so_everywhere_and_still_answers(config: Config) -> None:
    async def use(agent: Running) -> Any:
        seen: list[Any] = []

        async def on_drain() -> None:
            reply = await agent.stub.ListAgents(agent_pb2.ListAgentsRequest())
            seen.append(from_agent(reply.agents[0]).draining)
            seen.append(await agent.health())
            seen.append(await agent.healthz())
            seen.append(read_agent_file(Path(str(config.agent.state_dir))))
            done.set()

        done = asyncio.Event()
        agent.jobs.on_drain = on_drain
        await agent.stub.Stop(agent_pb2.StopRequest())
        await done.wait()
        return seen, agent.jobs.drain_deadline_s

    code, (seen, deadline_s) = live(config, use)
    assert code == 0
    assert seen == [True, "NOT_SERVING", 503, None]
    assert deadline_s == config.agent.drain_s


def test_task_left_behind_by_the_drain_is_no_clean_end(config: Config) -> None:
    async def use(agent: Running) -> None:
        agent.jobs.running = 1

    assert live(config, use)[0] == 1


def test_control_message_over_grpcs_own_limit_passes(config: Config) -> None:
    async def use(agent: Running) -> Any:
        return await agent.stub.PrepareJob(agent_pb2.PrepareJobRequest(plan=bytes(8 << 20)))

    assert live(config, use)[1] == agent_pb2.PrepareJobReply()


def test_long_failure_passes_grpcs_own_limit_of_metadata(config: Config) -> None:
    async def use(agent: Running) -> Any:
        agent.jobs.error = UsageError("x" * 50_000)
        return await agent.failure("EndJob", agent_pb2.EndJobRequest())

    _, (_, error) = live(config, use)
    assert isinstance(error, UsageError)
    assert error.message == "x" * 50_000
