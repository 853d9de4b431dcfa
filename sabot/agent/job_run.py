"""Drives one coordinator for real: carries out its commands on the loop, reports what came of them, tells the client.

When the job has ended, its calls are cancelled, every agent is told, and only then does the client hear of it; an agent
that does not answer is waited for in the background.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sabot.agent import job_events as ev
from sabot.agent.coordinator import Coordinator
from sabot.agent.output_folder import OutputFolder
from sabot.agent.owner_table import OwnerTable
from sabot.agent.peer_calls import PeerCalls
from sabot.agent.peer_watch import PeerWatch
from sabot.errors import JobCancelled, PeerLost, PeerRefused, SabotError
from sabot.wire import agent_pb2
from sabot.wire.agent_pb2 import (
    EndJobRequest,
    InputAttempts,
    JobAccepted,
    JobEvent,
    JobProgress,
    PrepareJobRequest,
    ReownJobRequest,
    RunTaskRequest,
)
from sabot.wire.convert import to_agent
from sabot.wire.failure import to_failure
from sabot.wire.member import Member

log = logging.getLogger("sabot.jobs")

PROGRESS_EVERY_S = 0.2
_TELL_TIME_EVERY_S = 0.25
_PREPARE_DEADLINE_S = 60.0
_END_WAIT_S = 1.0
_REOWNS_MAX = 6  # times jobs.peer_deadline_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every run on this agent shares."""

    me: Member
    calls: PeerCalls
    watch: PeerWatch
    peer_deadline_s: float


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
        self.agents = tuple(agents)
        self._plan = plan
        self._coordinator = coordinator
        self._around = surroundings
        self._started_s = 0.0
        self._calls: set[asyncio.Task[None]] = set()
        self._attempts: dict[tuple[int, int, int], asyncio.Task[None]] = {}  # by stage, task, attempt
        self._farewells: set[asyncio.Task[None]] = set()
        self._endings: set[asyncio.Task[None]] = set()
        self._folder: OutputFolder | None = None
        self._folder_turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._last_event: JobEvent | None = None
        self._wound_up = asyncio.Event()

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
        return self._coordinator.progress()

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

    def post(self, event: ev.Event) -> None:
        """Tell the coordinator, and do what it wants done."""
        commands = self._coordinator.handle(event)
        for command in commands:
            self._carry_out(command)
        if commands or not isinstance(event, ev.TimePassed):
            self._news.set()

    async def events(self) -> AsyncGenerator[JobEvent, None]:
        """Accepted, then progress at most five times a second, then how it ended."""
        yield JobEvent(accepted=JobAccepted(agents=[to_agent(member) for member in self.agents]))
        while True:
            await self._news.wait()
            self._news.clear()
            if self._last_event is not None:
                yield self._last_event
                return
            yield JobEvent(progress=JobProgress(stages=self._coordinator.progress()))
            if not self._wound_up.is_set():
                await _wait_at_most(self._wound_up, PROGRESS_EVERY_S)

    async def wound_up(self) -> None:
        """Waits until the job has ended and every agent that answers has been told."""
        await self._wound_up.wait()
        while self._endings or self._farewells:
            await asyncio.wait(self._endings | self._farewells)

    def _carry_out(self, command: ev.Command) -> None:
        match command:
            case ev.Prepare(agent=agent, table=table):
                self._spawn(self._prepare(agent, table))
            case ev.Reown(agent=agent, table=table):
                self._spawn(self._reown(agent, table))
            case ev.CheckAgents(table=table):
                self._spawn(self._check_agents(table))
            case ev.StartTask():
                which = (command.stage_id, command.task, command.attempt)
                self._attempts[which] = self._spawn(self._run_task(command))
            case ev.CancelTask(stage_id=stage_id, task=task, attempt=attempt):
                call = self._attempts.pop((stage_id, task, attempt), None)
                if call is not None:
                    call.cancel()
            case ev.OpenFolder(folder=folder):
                self._folder = OutputFolder(folder, self.job_id)
                self._spawn_ending(self._use_folder(self._folder.open, ev.FolderOpened()))
            case ev.PublishFolder(files=files):
                assert self._folder is not None
                self._spawn_ending(self._use_folder(partial(self._folder.publish, files), ev.FolderPublished()))
            case ev.EndJob(agent=agent, keep_result=keep_result):
                # An agent that was given up may be frozen: nobody waits for it.
                among = self._endings if self.ended else self._farewells
                self._keep(among, self._end_job(agent, keep_result))
            case ev.DiscardFolder():
                self._spawn_ending(self._discard_folder())
            case ev.Finish(finished=finished):
                finished.elapsed_s = asyncio.get_running_loop().time() - self._started_s
                self._end_with(JobEvent(finished=finished))
            case ev.Fail(failure=failure):
                log.info("job failed job=%s failure=%s message=%.500s", self.job_id, failure.type, failure.message)
                self._end_with(JobEvent(failed=failure))

    def _end_with(self, event: JobEvent) -> None:
        for call in self._calls:
            call.cancel()
        self._spawn_ending(self._wind_up(event, set(self._endings)))

    async def _wind_up(self, event: JobEvent, endings: set[asyncio.Task[None]]) -> None:
        if endings:
            await asyncio.wait(endings, timeout=_END_WAIT_S)
        self._last_event = event
        self._wound_up.set()
        self._news.set()

    async def _prepare(self, agent: int, table: OwnerTable) -> None:
        counts = self._coordinator.num_partitions
        request = PrepareJobRequest(
            job_id=self.job_id,
            plan=self._plan,
            agents=[to_agent(member) for member in self.agents],
            num_partitions=[counts.get(stage_id, 0) for stage_id in range(max(counts, default=-1) + 1)],
            coordinator=to_agent(self._around.me),
            table=_to_wire(table),
        )
        try:
            await self._around.calls.prepare(self.agents[agent], request, timeout_s=_PREPARE_DEADLINE_S)
        except Exception as error:
            self.post(ev.PrepareFailed(agent=agent, failure=to_failure(error)))
        else:
            self.post(ev.Prepared(agent=agent))

    async def _reown(self, agent: int, table: OwnerTable) -> None:
        try:
            await self._reown_while_it_lives(self.agents[agent], table)
        except Exception as error:
            self.post(ev.ReownFailed(agent=agent, epoch=table.epoch, failure=to_failure(error)))
        else:
            self.post(ev.Reowned(agent=agent, epoch=table.epoch))

    async def _reown_while_it_lives(self, member: Member, table: OwnerTable) -> None:
        """An agent whose interpreter is busy answers late: it is asked again as long as its native port answers."""
        request = ReownJobRequest(job_id=self.job_id, table=_to_wire(table))
        deadline_s = self._around.peer_deadline_s
        for ask in range(_REOWNS_MAX):
            try:
                return await self._around.calls.reown(member, request, timeout_s=deadline_s)
            except PeerLost:
                if ask == _REOWNS_MAX - 1 or await self._around.watch.check(member) is not None:
                    raise

    async def _check_agents(self, table: OwnerTable) -> None:
        others = [
            index for index in self._coordinator.living if self.agents[index].identity != self._around.me.identity
        ]
        errors = await asyncio.gather(*(self._how_lost(index, table) for index in others))
        for index, error in zip(others, errors, strict=True):
            if error is not None:
                self._lost(index, error)
        self.post(ev.AgentsChecked())

    async def _how_lost(self, index: int, table: OwnerTable) -> SabotError | None:
        """One that answers pings may have the job no longer: it may have ended it when it missed this agent."""
        member = self.agents[index]
        request = ReownJobRequest(job_id=self.job_id, table=_to_wire(table))
        lost = asyncio.ensure_future(self._around.watch.check(member))
        try:
            await self._around.calls.reown(member, request, timeout_s=self._around.peer_deadline_s)
            return await lost
        except (PeerRefused, JobCancelled) as error:
            return error
        except PeerLost:
            return await lost  # whether it lives is for the ping to say, which needs no interpreter
        finally:
            lost.cancel()

    async def _run_task(self, command: ev.StartTask) -> None:
        request = RunTaskRequest(
            job_id=self.job_id,
            stage_id=command.stage_id,
            task=command.task,
            attempt=command.attempt,
            split=pickle.dumps(command.split),
            inputs=[InputAttempts(stage_id=stage_id, attempts=attempts) for stage_id, attempts in command.inputs],
            epoch=command.epoch,
            partitions=sorted(command.partitions or ()),
            copies=[
                InputAttempts(stage_id=copy.stage_id, attempts=copy.attempts, partition=copy.partition)
                for copy in command.copies
            ],
        )
        which = {
            "agent": command.agent,
            "stage_id": command.stage_id,
            "task": command.task,
            "attempt": command.attempt,
        }
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
            log.info("attempt failed job=%s %s message=%.300s", self.job_id, which, reply.failure.message)
            self.post(ev.TaskFailed(**which, failure=reply.failure))
        else:
            self.post(ev.TaskSucceeded(**which, reply=reply))

    async def _tell_time(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TELL_TIME_EVERY_S)
            self.post(ev.TimePassed(elapsed_s=loop.time() - self._started_s))

    async def _watch(self, index: int, member: Member) -> None:
        self._lost(index, await self._around.watch.lost(member))

    def _lost(self, index: int, error: SabotError) -> None:
        if index in self._coordinator.living and not self.ended:
            log.warning(
                "agent given up job=%s agent=%s error=%s", self.job_id, self.agents[index].agent_id, error.message
            )
        self.post(ev.AgentLost(agent=index, failure=to_failure(error)))

    async def _end_job(self, agent: int, keep_result: bool) -> None:
        member = self.agents[agent]
        request = EndJobRequest(job_id=self.job_id, keep_result=keep_result)
        try:
            await self._around.calls.end_job(member, request, timeout_s=self._around.peer_deadline_s)
        except Exception as error:  # the agent frees the job by itself when it misses its coordinator
            log.info("agent not told of a job's end job=%s agent=%s error=%s", self.job_id, member.agent_id, error)

    async def _use_folder(self, use: Callable[[], None], done: ev.Event) -> None:
        """Never cancelled, so that a discard comes after it and not in its midst."""
        try:
            async with self._folder_turn:
                await asyncio.to_thread(use)
        except Exception as error:
            self.post(ev.FolderFailed(failure=to_failure(error)))
        else:
            self.post(done)

    async def _discard_folder(self) -> None:
        async with self._folder_turn:
            if self._folder is not None:
                await asyncio.to_thread(self._folder.discard)

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


def _to_wire(table: OwnerTable) -> agent_pb2.OwnerTable:
    return agent_pb2.OwnerTable(epoch=table.epoch, owners=table.owners, lost=sorted(table.lost))


async def _wait_at_most(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
