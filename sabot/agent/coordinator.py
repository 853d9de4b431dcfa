"""The life of one job as a state machine: events in, commands out, without I/O, clock or threads.

It chooses the number of partitions, starts a stage when all its inputs are done, places tasks, folds receipts, and ends
the job: once, with an answer or a failure, and with an EndJob for every agent that it ever asked to prepare. Whoever
drives it carries out the commands in order and reports what came of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from sabot.agent import job_events as ev
from sabot.agent.receipts import Receipts, TaskIdentity
from sabot.agent.stage_run import StageRun
from sabot.dataflow.splits import splits_of
from sabot.dataflow.stage import (
    HashShuffle,
    JobPlan,
    PartitionSplit,
    RoundRobinShuffle,
    ShuffleInput,
    Split,
    TableSplit,
    WriteOutput,
)
from sabot.errors import InternalError, JobCancelled, PeerLost
from sabot.wire.agent_pb2 import Failure, JobFinished, StageProgress
from sabot.wire.failure import from_failure, to_failure
from sabot.wire.member import Member

TASKS_AHEAD = 1
"""Tasks given to an agent beyond its slots, so that a slot has work while another task's chunks are confirmed."""


class _Phase(Enum):
    NEW = "new"
    PREPARING = "preparing"
    RUNNING = "running"
    PUBLISHING = "publishing"
    ENDED = "ended"


class Coordinator:
    """Drives `plan` over `agents`, whose order is the owner table; PeerLost where there are none."""

    def __init__(self, *, plan: JobPlan, agents: Sequence[Member], partitions_per_slot: int, split_bytes: int) -> None:
        if not agents:
            raise PeerLost("no agent takes work now: all are draining or gone; see sabot-agent agents")
        self._plan = plan
        self._agents = tuple(agents)
        self._slots = [max(1, agent.slots) for agent in agents]
        self._split_bytes = split_bytes
        self.num_partitions = choose_partitions(plan, default=max(1, partitions_per_slot * sum(self._slots)))
        self._receipts = Receipts(plan, self.num_partitions)
        self._stages = {
            stage.stage_id: StageRun(stage, tasks_expected=self._partitions_read(stage.input) or 0)
            for stage in plan.stages
        }
        self._last = self._stages[plan.stages[-1].stage_id]
        self._running = [0] * len(agents)
        self._phase = _Phase.NEW
        self._awaited: set[int] = set()  # agents that have not confirmed Prepare
        self._folder_awaited = False
        self._asked: list[int] = []  # agents that must get EndJob

    @property
    def ended(self) -> bool:
        return self._phase is _Phase.ENDED

    def progress(self) -> list[StageProgress]:
        """Where each stage stands; made anew at each call."""
        return [run.progress() for run in self._stages.values()]

    def handle(self, event: ev.Event) -> list[ev.Command]:
        """Take one event; gives what is to be done, in order. After the end there is nothing to be done."""
        if self.ended:
            return []
        try:
            return self._on(event)
        except Exception as error:  # a receipt that does not add up, or a bug: either way the job ends, and says so
            return self._fail(to_failure(error))

    def _on(self, event: ev.Event) -> list[ev.Command]:
        match event:
            case ev.JobStarted():
                commands = self._prepare()
            case ev.Prepared(agent=agent):
                self._awaited.discard(agent)
                commands = self._start_when_prepared()
            case ev.FolderOpened():
                self._folder_awaited = False
                commands = self._start_when_prepared()
            case ev.TaskSucceeded():
                commands = self._on_task_succeeded(event)
            case ev.FolderPublished():
                commands = self._finish()
            case ev.TaskFailed(failure=failure):
                commands = self._fail(self._named(failure))
            case ev.PrepareFailed() | ev.FolderFailed() | ev.AgentLost() | ev.DriverFailed():
                commands = self._fail(event.failure)
            case ev.Cancelled(reason=reason):
                error = JobCancelled(f"job {self._plan.job_id} was cancelled: {reason}", job=self._plan.job_id)
                commands = self._fail(to_failure(error))
        return commands

    def _prepare(self) -> list[ev.Command]:
        self._phase = _Phase.PREPARING
        self._asked = list(range(len(self._agents)))
        self._awaited = set(self._asked)
        commands: list[ev.Command] = [ev.Prepare(agent=agent) for agent in self._asked]
        if isinstance(self._last.stage.output, WriteOutput):
            self._folder_awaited = True
            commands.append(ev.OpenFolder(folder=self._last.stage.output.folder))
        return commands

    def _start_when_prepared(self) -> list[ev.Command]:
        if self._phase is not _Phase.PREPARING or self._awaited or self._folder_awaited:
            return []
        self._phase = _Phase.RUNNING
        return self._advance()

    def _on_task_succeeded(self, event: ev.TaskSucceeded) -> list[ev.Command]:
        run = self._stages[event.stage_id]
        if not run.is_running(event.task, event.agent):
            return []
        self._running[event.agent] -= 1
        who = TaskIdentity(
            stage=run.stage,
            task=event.task,
            attempt=event.attempt,
            agent_id=self._agents[event.agent].agent_id,
        )
        self._receipts.fold(who, run.splits[event.task], event.reply)
        run.end(event.task, event.reply)
        return self._advance()

    def _advance(self) -> list[ev.Command]:
        """Start what may start, hand out what may run, and end the job when nothing is left."""
        for run in self._stages.values():
            if not run.started and all(self._stages[stage_id].done for stage_id in self._inputs_of(run)):
                self._start_stage(run)
        if not self._last.done:
            return self._hand_out()
        if not isinstance(self._last.stage.output, WriteOutput):
            return self._finish()
        self._phase = _Phase.PUBLISHING
        return [ev.PublishFolder(files=self._last.files())]

    def _start_stage(self, run: StageRun) -> None:
        splits = splits_of(
            run.stage,
            self._plan,
            num_partitions=self._partitions_read(run.stage.input),
            split_bytes=self._split_bytes,
            slots=sum(self._slots),
        )
        run.start(splits, self._agent_of)

    def _hand_out(self) -> list[ev.Command]:
        """Deal tasks in turn to agents with room, so that none gets a second one before all have had a first."""
        commands: list[ev.Command] = []
        open_agents = list(range(len(self._agents)))
        while open_agents:
            open_agents = [agent for agent in open_agents if self._running[agent] < self._slots[agent] + TASKS_AHEAD]
            dealt = [(agent, self._next_task(agent)) for agent in open_agents]
            commands.extend(command for _, command in dealt if command is not None)
            open_agents = [agent for agent, command in dealt if command is not None]
        return commands

    def _next_task(self, agent: int) -> ev.StartTask | None:
        for run in self._stages.values():
            task = run.take(agent) if run.started else None
            if task is not None:
                self._running[agent] += 1
                return ev.StartTask(
                    agent=agent,
                    stage_id=run.stage.stage_id,
                    task=task,
                    attempt=run.attempts[task],
                    split=run.splits[task],
                    inputs=tuple((stage_id, self._stages[stage_id].attempts) for stage_id in self._inputs_of(run)),
                )
        return None

    def _finish(self) -> list[ev.Command]:
        self._phase = _Phase.ENDED
        keep_result = not isinstance(self._last.stage.output, WriteOutput)
        finished = JobFinished(
            partitions=self._last.results() if keep_result else [],
            shuffles=self._receipts.shuffles(),
            stages=self.progress(),
            schema=self._last.stage.schema.serialize().to_pybytes(),
        )
        return [
            *(ev.EndJob(agent=agent, keep_result=keep_result) for agent in self._asked),
            ev.Finish(finished=finished),
        ]

    def _fail(self, failure: Failure) -> list[ev.Command]:
        self._phase = _Phase.ENDED
        commands: list[ev.Command] = [ev.EndJob(agent=agent, keep_result=False) for agent in self._asked]
        if isinstance(self._last.stage.output, WriteOutput):
            commands.append(ev.DiscardFolder())
        return [*commands, ev.Fail(failure=failure)]

    def _inputs_of(self, run: StageRun) -> tuple[int, ...]:
        return run.stage.input.stage_ids if isinstance(run.stage.input, ShuffleInput) else ()

    def _partitions_read(self, source: object) -> int | None:
        return self.num_partitions[source.stage_ids[0]] if isinstance(source, ShuffleInput) else None

    def _agent_of(self, split: Split) -> int | None:
        """Who must run it: a partition's owner, or the agent that was given a piece of an uploaded table."""
        if isinstance(split, PartitionSplit):
            return split.partition % len(self._agents)
        if not isinstance(split, TableSplit):
            return None
        address = split.piece.flight_address
        for index, agent in enumerate(self._agents):
            if agent.flight_address == address:
                return index
        raise PeerLost(
            f"the agent at {address}, which holds piece {split.piece.index} of an uploaded table, takes no part in the "
            "job: it is gone or draining; run the job again",
            address=address,
        )

    def _named(self, failure: Failure) -> Failure:
        """A task's PeerLost says only an address; say whose it is."""
        if failure.type != f"{PeerLost.__module__}.{PeerLost.__qualname__}":
            return failure
        error = from_failure(failure)
        if not isinstance(error, PeerLost) or "agent" in error.facts:
            return failure
        address = error.facts.get("address")
        for agent in self._agents:
            if address in (agent.flight_address, agent.control_address):
                named = PeerLost(f"agent {agent.agent_id}: {error.message}", **error.facts, agent=agent.agent_id)
                for note in getattr(error, "__notes__", []):
                    named.add_note(note)
                return to_failure(named)
        return failure


def choose_partitions(plan: JobPlan, *, default: int) -> dict[int, int]:
    """The number of partitions of each shuffle by its stage: the plan's, 1 without keys, else that of the other side of
    its join, else `default`."""
    chosen: dict[int, int] = {}
    for stage in plan.stages:
        match stage.output:
            case HashShuffle(keys=()):
                chosen[stage.stage_id] = 1
            case HashShuffle(num_partitions=int(count)) | RoundRobinShuffle(num_partitions=int(count)):
                chosen[stage.stage_id] = count
    for stage in plan.stages:
        sides = stage.input.stage_ids if isinstance(stage.input, ShuffleInput) else ()
        fixed = {chosen[side] for side in sides if side in chosen}
        if len(fixed) > 1:
            raise InternalError(
                f"the inputs of stage {stage.stage_id} have {sorted(fixed)} partitions; please report it"
            )
        chosen.update({side: min(fixed, default=default) for side in sides})
    return chosen
