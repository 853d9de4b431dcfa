"""Commands reach agents over real control ports, and what goes wrong is named by agent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from sabot.agent.jobs.peer_calls import PeerCalls
from sabot.errors import PeerLost, PeerRefused, SabotError, UsageError
from sabot.wire.agent_pb2 import (
    EndJobReply,
    EndJobRequest,
    PrepareJobReply,
    PrepareJobRequest,
    ReownJobReply,
    ReownJobRequest,
    RunTaskReply,
    RunTaskRequest,
)
from sabot.wire.agent_pb2_grpc import AgentControlServicer, add_AgentControlServicer_to_server
from sabot.wire.member import Member
from sabot.wire.rpc_errors import status_of
from tests.shuffle.faulty_proxy import FaultyProxy


class Recorder:
    """An agent on this side of the wire, which only notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def prepare(self, request: PrepareJobRequest) -> PrepareJobReply:
        self.heard.append(f"prepare {request.job_id}")
        return PrepareJobReply()

    async def run_task(self, request: RunTaskRequest) -> RunTaskReply:
        self.heard.append(f"run {request.task}")
        return RunTaskReply(rows_out=7)

    async def reown(self, request: ReownJobRequest) -> ReownJobReply:
        self.heard.append(f"reown {request.table.epoch}")
        return ReownJobReply()

    async def end_job(self, request: EndJobRequest) -> EndJobReply:
        self.heard.append(f"end {request.job_id}")
        return EndJobReply()


class Service(AgentControlServicer):
    """An agent at the other end of the wire: `run` says what becomes of a task."""

    def __init__(self, run: Callable[[], Awaitable[RunTaskReply]]) -> None:
        self.run = run
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def RunTask(  # noqa: N802
        self, request: RunTaskRequest, context: Any
    ) -> RunTaskReply:
        self.started.set()
        try:
            return await self.run()
        except SabotError as error:
            code, details, metadata = status_of(error)
            await context.abort(code, details, metadata)
            raise
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def PrepareJob(  # noqa: N802
        self, request: PrepareJobRequest, context: Any
    ) -> PrepareJobReply:
        await asyncio.Event().wait()
        return PrepareJobReply()

    async def EndJob(  # noqa: N802
        self, request: EndJobRequest, context: Any
    ) -> EndJobReply:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "what is EndJob?")
        return EndJobReply()


def with_agent(
    run: Callable[[], Awaitable[RunTaskReply]], main: Callable[[PeerCalls, Member, Service, Any], Awaitable[None]]
) -> None:
    async def body() -> None:
        server = grpc.aio.server()
        service = Service(run)
        add_AgentControlServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        other = Member(
            agent_id="b",
            incarnation=2,
            control_address=f"127.0.0.1:{port}",
            flight_address="127.0.0.1:1",
            http_address="127.0.0.1:1",
            slots=1,
        )
        calls = PeerCalls(Recorder(), ("a", 1))
        try:
            await main(calls, other, service, server)
        finally:
            await calls.close()
            await server.stop(None)

    asyncio.run(body())


async def forever() -> RunTaskReply:
    await asyncio.Event().wait()
    return RunTaskReply()


def test_own_agent_is_called_without_the_wire() -> None:
    async def main() -> None:
        local = Recorder()
        calls = PeerCalls(local, ("a", 1))
        me = Member(
            agent_id="a", incarnation=1, control_address="nowhere:1", flight_address="", http_address="", slots=1
        )
        await calls.prepare(me, PrepareJobRequest(job_id="j"), timeout_s=1)
        assert (await calls.run_task(me, RunTaskRequest(task=3))).rows_out == 7
        await calls.end_job(me, EndJobRequest(job_id="j"), timeout_s=1)
        assert local.heard == ["prepare j", "run 3", "end j"]
        await calls.close()

    asyncio.run(main())


def test_reply_of_another_agent_arrives() -> None:
    async def reply() -> RunTaskReply:
        return RunTaskReply(rows_out=5)

    async def main(calls: PeerCalls, other: Member, service: Service, server: Any) -> None:
        assert (await calls.run_task(other, RunTaskRequest())).rows_out == 5

    with_agent(reply, main)


def test_error_of_another_agent_arrives_as_itself() -> None:
    async def refuse() -> RunTaskReply:
        raise UsageError("no such task", task=3)

    async def main(calls: PeerCalls, other: Member, service: Service, server: Any) -> None:
        with pytest.raises(UsageError, match="no such task") as caught:
            await calls.run_task(other, RunTaskRequest())
        assert caught.value.facts == {"task": 3}

    with_agent(refuse, main)


def test_agent_that_is_not_there_is_lost_by_name_and_address() -> None:
    async def main(calls: PeerCalls, other: Member, service: Service, server: Any) -> None:
        await server.stop(None)
        with pytest.raises(PeerLost) as caught:
            await calls.run_task(other, RunTaskRequest())
        assert (caught.value.facts["agent"], caught.value.facts["address"]) == ("b", other.control_address)
        assert f"agent b at {other.control_address}" in str(caught.value)

    with_agent(forever, main)


def test_agent_that_dies_while_a_task_runs_is_lost() -> None:
    async def main(calls: PeerCalls, other: Member, service: Service, server: Any) -> None:
        task = asyncio.create_task(calls.run_task(other, RunTaskRequest()))
        await service.started.wait()
        await server.stop(None)
        with pytest.raises(PeerLost):
            await task

    with_agent(forever, main)


def test_agent_that_does_not_answer_in_time_is_lost_with_the_deadline() -> None:
    async def main(calls: PeerCalls, other: Member, service: Service, server: Any) -> None:
        with pytest.raises(PeerLost, match=r"within 0.05 s"):
            await calls.prepare(other, PrepareJobRequest(), timeout_s=0.05)

    with_agent(forever, main)


def test_cancelling_a_call_cancels_the_task_on_the_other_agent() -> None:
    async def main(calls: PeerCalls, other: Member, service: Service, server: Any) -> None:
        task = asyncio.create_task(calls.run_task(other, RunTaskRequest()))
        await service.started.wait()
        task.cancel()
        async with asyncio.timeout(10):
            await service.cancelled.wait()

    with_agent(forever, main)


def test_command_that_an_agent_does_not_know_is_refused_by_name() -> None:
    async def main(calls: PeerCalls, other: Member, service: Service, server: Any) -> None:
        with pytest.raises(PeerRefused, match="agent b"):
            await calls.end_job(other, EndJobRequest(), timeout_s=5)

    with_agent(forever, main)


def test_call_that_is_answered_too_late_does_not_end_another() -> None:
    go_on = asyncio.Event()

    async def waits() -> RunTaskReply:
        await go_on.wait()
        return RunTaskReply(rows_out=5)

    async def main(calls: PeerCalls, other: Member, service: Service, server: Any) -> None:
        task = asyncio.ensure_future(calls.run_task(other, RunTaskRequest()))
        await service.started.wait()
        with pytest.raises(PeerLost, match=r"did not answer PrepareJob within 0\.1 s"):
            await calls.prepare(other, PrepareJobRequest(), timeout_s=0.1)
        go_on.set()
        assert (await task).rows_out == 5

    with_agent(waits, main)


def test_call_after_one_without_an_answer_has_a_connection_of_its_own() -> None:
    async def reply() -> RunTaskReply:
        return RunTaskReply(rows_out=5)

    async def main(calls: PeerCalls, other: Member, service: Service, server: Any) -> None:
        with FaultyProxy(other.control_address) as proxy:
            behind = replace(other, control_address=proxy.address)
            assert (await calls.run_task(behind, RunTaskRequest())).rows_out == 5
            proxy.strand()
            under_way = asyncio.ensure_future(calls.run_task(behind, RunTaskRequest()))
            with pytest.raises(PeerLost, match="PrepareJob"):
                await calls.prepare(behind, PrepareJobRequest(), timeout_s=0.2)
            async with asyncio.timeout(10):
                assert (await calls.run_task(behind, RunTaskRequest())).rows_out == 5
            assert not under_way.done() and proxy.connections == 2
            under_way.cancel()

    with_agent(reply, main)


def test_call_ended_by_its_channel_is_a_lost_peer_and_no_cancel() -> None:
    async def main(calls: PeerCalls, other: Member, service: Service, server: Any) -> None:
        task = asyncio.ensure_future(calls.run_task(other, RunTaskRequest()))
        await service.started.wait()
        await calls.close()
        with pytest.raises(PeerLost, match="was broken off"):
            await task

    with_agent(forever, main)
