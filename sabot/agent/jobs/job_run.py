"""Drives one coordinator for real: carries out its commands on the loop, reports what came of them, tells the client.

When the job has failed, its calls are cancelled, every agent is told, and only then does the client hear of it; one
that does not answer is waited for in the background. An answer the client hears of first: until it has it, another
coordinator may have to go on. A job whose client is gone goes on for a while: the client may turn to another agent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.coordinator import Coordinator
from sabot.agent.coordination.owner_table import OwnerTable
from sabot.agent.coordination.running import sent_epoch_of
from sabot.agent.coordination.takeover import to_wire_table
from sabot.agent.jobs.invitations import Invitations, is_free
from sabot.agent.jobs.job_folder import JobFolder
from sabot.agent.jobs.job_news import JobNews
from sabot.agent.jobs.job_recorder import JobRecorder
from sabot.agent.jobs.run_task_request import run_task_request
from sabot.agent.jobs.stage_times import StageTimes
from sabot.agent.jobs.surroundings import Surroundings
from sabot.dataflow.stage import JobPlan
from sabot.errors import JobCancelled, JobTakenOver, PeerLost, PeerRefused, SabotError
from sabot.wire import agent_pb2
from sabot.wire.agent_pb2 import (
    EndJobRequest,
    Failure,
    JobAccepted,
    JobEvent,
    JobJournal,
    PrepareJobRequest,
    RecordJobRequest,
    ReownJobRequest,
)
from sabot.wire.convert import to_agent
from sabot.wire.failure import to_failure
from sabot.wire.member import Member

log = logging.getLogger("sabot.jobs")

_TELL_TIME_EVERY_S = 0.25
_PREPARE_DEADLINE_S = 60.0
_END_WAIT_S = 1.0
_ASKS_MAX = 6  # times jobs.peer_deadline_s


class JobRun:
    """One job from its start to its end. All methods are called on the loop."""

    def __init__(
        self,
        *,
        job_id: str,
        plan: bytes,
        coordinator: Coordinator,
        agents: Sequence[Member],
        surroundings: Surroundings,
    ) -> None:
        self.job_id = job_id
        self.agents = list(agents)
        self.epoch = coordinator.epoch
        self._invitations = Invitations(surroundings.members, surroundings.watch)
        self._plan = plan
        self._coordinator = coordinator
        self._around = surroundings
        self._started_s = 0.0
        self._times = StageTimes(asyncio.get_running_loop().time)
        self._calls: set[asyncio.Task[None]] = set()
        self._attempts: dict[tuple[int, int, int], asyncio.Task[None]] = {}  # by stage, task, attempt
        self._farewells: set[asyncio.Task[None]] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._folder = JobFolder(
            job_id, self.epoch, sources=surroundings.sources, post=self.post, spawn=self._spawn_ending
        )
        self._news = JobNews()
        self._last_words: list[ev.EndJob] = []  # to be said when the client has its answer
        self._wound_up = asyncio.Event()
        self.dropped = False  # it is another agent's now
        self._forsaken = False
        self._client_gone: asyncio.TimerHandle | None = None
        self._recorder = JobRecorder(coordinator, send=self._record, post=self.post, spawn=self._spawn)

    @property
    def job_plan(self) -> JobPlan:
        return self._coordinator.plan

    @property
    def ended(self) -> bool:
        return self._coordinator.ended

    @property
    def living(self) -> tuple[Member, ...]:
        """The agents that the job has not given up."""
        return tuple(self.agents[index] for index in self._coordinator.living)

    @property
    def identities(self) -> set[tuple[str, int]]:
        return {member.identity for member in self.living}

    def progress(self) -> list[agent_pb2.StageProgress]:
        """Where each stage stands."""
        return self._times.filled(self._coordinator.progress())

    def start(self) -> None:
        self._started_s = asyncio.get_running_loop().time()
        for index, member in enumerate(self.agents):
            if member.identity != self._around.me.identity:
                self._spawn(self._watch(index, member))
        self._spawn(self._tell_time())
        self.post(ev.JobStarted())

    def cancel(self, reason: str) -> None:
        """Ends the job everywhere; harmless when it has ended."""
        self.post(ev.Cancelled(reason=reason))

    def drop(self) -> None:
        """Another agent coordinates the job: lets go of it, whatever it has come to here."""
        self.post(ev.TakenOver())
        if not self._wound_up.is_set():
            self._let_go()

    def outlive_client(self) -> None:
        """The client's stream is gone. Unless the client has another agent take the job over, it has died."""
        if self._client_gone is None and not self._wound_up.is_set():
            loop = asyncio.get_running_loop()
            self._client_gone = loop.call_later(self._around.takeover_s, self._end_without_client)

    def _end_without_client(self) -> None:
        self._forsaken = True
        self.cancel("its client went away")
        self._say_goodbye(keep_result=self._news.end_told)

    def post(self, event: ev.Event) -> None:
        """Tell the coordinator, and do what it wants done."""
        commands = self._coordinator.handle(event)
        self._times.note(event, commands)
        for command in commands:
            self._carry_out(command)
        if commands or not isinstance(event, ev.TimePassed):
            self._news.changed()

    async def events(self) -> AsyncGenerator[JobEvent, None]:
        """Accepted, then progress at most five times a second, then how it ended, until that is confirmed."""
        agents = [to_agent(member) for member in self.agents]
        accepted = JobAccepted(agents=agents, peer_deadline_s=self._around.peer_deadline_s)
        async with aclosing(self._news.events(accepted, self.progress, self._wound_up)) as events:
            async for event in events:
                yield event

    def confirm(self) -> None:
        """The client has heard that the job has finished."""
        self._say_goodbye(keep_result=True)

    async def wound_up(self) -> None:
        """Waits until the job has ended, the client has its answer, and every agent that answers has been told."""
        await self._wound_up.wait()
        while self._endings or self._farewells:
            await asyncio.wait(self._endings | self._farewells)

    def _carry_out(self, command: ev.Command) -> None:
        match command:
            case ev.Prepare(agent=agent, table=table):
                self._spawn(self._prepare(agent, table))
            case ev.Reown(agent=agent, table=table):
                self._spawn(self._reown(agent, table))
            case ev.CheckAgents(table=table, last=last):
                self._spawn(self._check_agents(table, last))
            case ev.StartTask():
                which = (command.stage_id, command.task, command.attempt)
                self._attempts[which] = self._spawn(self._run_task(command))
            case ev.CancelTask(stage_id=stage_id, task=task, attempt=attempt):
                call = self._attempts.pop((stage_id, task, attempt), None)
                if call is not None:
                    call.cancel()
            case ev.EndJob() if self.ended:
                self._last_words.append(command)
            case ev.EndJob():  # an agent that was given up may be frozen: nobody waits for it
                self._keep(self._farewells, self._end_job(command.agent, command.keep_result))
            case _:
                self._see_to(command)

    def _see_to(self, command: ev.Command) -> None:
        """What is not for one agent."""
        match command:
            case ev.Record(urgent=urgent):
                self._recorder.record(urgent=urgent)
            case ev.AskToPublish():
                self._news.ask_to_publish()
            case ev.OpenFolder(output=output, schema=schema):
                self._folder.open(output, schema, self.living)
            case ev.PublishFolder(files=files):
                self._folder.publish(files)
            case ev.DiscardFolder():
                self._folder.discard()
            case ev.Drop(failure=failure):
                log.warning("job is another's now job=%s message=%s", self.job_id, failure and failure.message)
                self._let_go(failure)
            case ev.Finish(finished=finished):
                finished.elapsed_s = asyncio.get_running_loop().time() - self._started_s
                self._times.filled(finished.stages)
                self._end_with(JobEvent(finished=finished))
                if self._forsaken:
                    self._say_goodbye(keep_result=False)
            case ev.Fail(failure=failure):
                log.info("job failed job=%s failure=%s message=%.500s", self.job_id, failure.type, failure.message)
                self._stop_calls()
                self._say_goodbye(keep_result=False)
                self._spawn_ending(self._fail_when_told(JobEvent(failed=failure), set(self._endings)))

    def _stop_calls(self) -> None:
        self._recorder.stop()
        for call in self._calls:
            call.cancel()

    def _end_with(self, event: JobEvent) -> None:
        self._stop_calls()
        self._news.end(event)

    def _let_go(self, failure: Failure | None = None) -> None:
        self.dropped = True
        self._last_words.clear()
        taken_over = JobTakenOver(f"job {self.job_id} is coordinated by another agent now", job=self.job_id)
        self._end_with(JobEvent(failed=failure or to_failure(taken_over)))
        self._wound_up.set()

    async def _fail_when_told(self, event: JobEvent, endings: set[asyncio.Task[None]]) -> None:
        if endings:
            await asyncio.wait(endings, timeout=_END_WAIT_S)
        self._end_with(event)

    def _say_goodbye(self, *, keep_result: bool) -> None:
        """Every agent may let go of the job. Only the first call says it."""
        if not self.ended or self._wound_up.is_set():
            return
        if self._client_gone is not None:
            self._client_gone.cancel()
        words, self._last_words = self._last_words, []
        for word in words:
            self._spawn_ending(self._end_job(word.agent, word.keep_result and keep_result))
        self._folder.discard()
        self._wound_up.set()

    async def _prepare(self, agent: int, table: OwnerTable) -> None:
        counts = self._coordinator.num_partitions
        request = PrepareJobRequest(
            job_id=self.job_id,
            plan=self._plan,
            agents=[to_agent(member) for member in self.agents],
            num_partitions=[counts.get(stage_id, 0) for stage_id in range(max(counts, default=-1) + 1)],
            coordinator=to_agent(self._around.me),
            table=to_wire_table(table),
        )
        try:
            await self._around.calls.prepare(self.agents[agent], request, timeout_s=_PREPARE_DEADLINE_S)
        except Exception as error:
            self.post(ev.PrepareFailed(agent=agent, failure=to_failure(error)))
        else:
            self.post(ev.Prepared(agent=agent))

    async def _record(self, agent: int, update: JobJournal) -> None:
        agents = [to_agent(member) for member in self.agents] if self._invitations.sent else []
        member, request = self.agents[agent], RecordJobRequest(job_id=self.job_id, journal=update, agents=agents)
        deadline_s = self._around.peer_deadline_s
        await self._while_it_lives(member, lambda: self._around.calls.record(member, request, timeout_s=deadline_s))

    async def _reown(self, agent: int, table: OwnerTable) -> None:
        member, request = self.agents[agent], self._reown_request(table)
        deadline_s = self._around.peer_deadline_s
        try:
            await self._while_it_lives(member, lambda: self._around.calls.reown(member, request, timeout_s=deadline_s))
        except Exception as error:
            self.post(ev.ReownFailed(agent=agent, epoch=table.epoch, failure=to_failure(error)))
        else:
            self.post(ev.Reowned(agent=agent, epoch=table.epoch))

    async def _while_it_lives(self, member: Member, call: Callable[[], Awaitable[None]]) -> None:
        """An agent whose interpreter is busy answers late: it is asked again as long as its native port answers."""
        for ask in range(_ASKS_MAX):
            try:
                return await call()
            except PeerLost:
                if ask == _ASKS_MAX - 1 or await self._around.watch.check(member) is not None:
                    raise

    def _reown_request(self, table: OwnerTable, *, keep_result: bool = False) -> ReownJobRequest:
        agents = [to_agent(member) for member in self.agents]
        return ReownJobRequest(job_id=self.job_id, table=to_wire_table(table), keep_result=keep_result, agents=agents)

    async def _check_agents(self, table: OwnerTable, last: bool) -> None:
        others = [
            index for index in self._coordinator.living if self.agents[index].identity != self._around.me.identity
        ]
        errors = await asyncio.gather(*(self._how_lost(index, table, last) for index in others))
        for index, error in zip(others, errors, strict=True):
            if error is not None:
                self._lost(index, error)
        self.post(ev.AgentsChecked())

    async def _how_lost(self, index: int, table: OwnerTable, last: bool) -> SabotError | None:
        """One that answers pings may have the job no longer: it may have ended it when it missed this agent."""
        member = self.agents[index]
        request = self._reown_request(table, keep_result=last)
        lost = asyncio.ensure_future(self._around.watch.check(member))
        try:
            await self._around.calls.reown(member, request, timeout_s=self._around.peer_deadline_s)
            return await lost
        except (PeerRefused, JobCancelled, JobTakenOver) as error:
            return error
        except PeerLost:
            return await lost  # whether it lives is for the ping to say, which needs no interpreter
        finally:
            lost.cancel()

    async def _run_task(self, command: ev.StartTask) -> None:
        request = run_task_request(self.job_id, command)
        which = {name: getattr(command, name) for name in ("agent", "stage_id", "task", "attempt")}
        try:
            reply = await self._around.calls.run_task(self.agents[command.agent], request)
        except PeerLost as error:
            # The agent takes no commands, whatever its native port answers.
            self._lost(command.agent, error)
            return
        except Exception as error:
            self.post(ev.TaskFailed(**which, failure=to_failure(error)))
            return
        finally:
            self._attempts.pop((command.stage_id, command.task, command.attempt), None)
        if reply.HasField("failure"):
            failure = await self._around.sources.failure_of(reply)
            log.info("attempt failed job=%s %s message=%.300s", self.job_id, which, failure.message)
            self.post(ev.TaskFailed(**which, failure=failure, sent_epoch=sent_epoch_of(reply)))
        else:
            self.post(ev.TaskSucceeded(**which, reply=reply))

    async def _tell_time(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TELL_TIME_EVERY_S)
            self.post(ev.TimePassed(elapsed_s=loop.time() - self._started_s))
            for member in self._invitations.due(self.agents, self.living):
                self._spawn(self._invite(member))
            for agent in self._invitations.leavers(self.agents):
                stays = self.agents[agent].identity == self._around.me.identity
                self.post(ev.AgentDraining(agent=agent, stays=stays))

    async def _invite(self, member: Member) -> None:
        if await self._invitations.answers(member) and is_free(member, self.living):
            self.agents.append(member)
            self._spawn(self._watch(len(self.agents) - 1, member))
            self.post(ev.AgentJoined(member=member))

    async def _watch(self, index: int, member: Member) -> None:
        self._lost(index, await self._around.watch.lost(member, eager=True))

    def _lost(self, index: int, error: SabotError) -> None:
        if index in self._coordinator.living and not self.ended:
            log.warning(
                "agent given up job=%s agent=%s error=%s", self.job_id, self.agents[index].agent_id, error.message
            )
        self.post(ev.AgentLost(agent=index, failure=to_failure(error)))

    async def _end_job(self, agent: int, keep_result: bool) -> None:
        member = self.agents[agent]
        request = EndJobRequest(job_id=self.job_id, keep_result=keep_result, epoch=self.epoch)
        try:
            await self._around.calls.end_job(member, request, timeout_s=self._around.peer_deadline_s)
        except Exception as error:  # the agent frees the job by itself when it misses its coordinator
            log.info("agent not told of a job's end job=%s agent=%s error=%s", self.job_id, member.agent_id, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._keep(self._calls, work)

    def _spawn_ending(self, work: Coroutine[Any, Any, None]) -> None:
        self._keep(self._endings, work)

    def _keep(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start `work` and hold it while it runs, for the loop holds tasks weakly; its bugs end the job."""

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                log.error("bug in driving a job job=%s", self.job_id, exc_info=error)
                self.post(ev.DriverFailed(failure=to_failure(error)))

        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(ended)
        return task
