"""Carries out the commands of a real Coordinator, as sabot.agent.job_run does, on the agent that accepted the job."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sabot.agent import job_events as ev
from sabot.agent.coordinator import Coordinator
from sabot.agent.owner_table import OwnerTable
from sabot.agent.range_choice import RangeRule
from sabot.dataflow.stage import JobPlan
from sabot.errors import JobCancelled, PeerLost, PeerRefused, SabotError
from sabot.wire.agent_pb2 import JobFinished, RunTaskReply
from sabot.wire.failure import to_failure
from sabot.wire.member import Member

from .network import Call
from .watch import PEER_DEADLINE_S, Ping, Watch

if TYPE_CHECKING:
    from .agent import Agent
    from .client import Client

PREPARE_DEADLINE_S = 60.0
FIRST_PING_S = 1.0
TELL_TIME_EVERY_S = 0.5


class Driver:
    """One job from its submission to its end."""

    def __init__(self, agent: Agent, plan: JobPlan, client: Client) -> None:
        self.agent, self.plan, self._client = agent, plan, client
        self.world = agent.world
        self.agents: list[Member] = []
        self.founders = 0
        self.coordinator: Coordinator | None = None
        self._calls: list[Call | Ping] = []
        self._watches: list[Watch] = []
        self._pings: dict[int, Any] = {}
        self._attempts: dict[tuple[int, int, int], Call] = {}
        self._began_s = 0.0
        self._untold = 0  # of the job's end, or of their own
        agent.drivers[plan.job_id] = self
        candidates = client.members
        for place, member in enumerate(candidates):
            if member.identity == agent.member.identity:
                self._pinged(place, member.incarnation)
            else:
                self._call(member, "ping", None, partial(self._pinged, place), FIRST_PING_S)

    @property
    def living(self) -> list[Member]:
        """Those that take part."""
        return [self.agents[place] for place in self.coordinator.living] if self.coordinator is not None else []

    @property
    def identities(self) -> set[tuple[str, int]]:
        return {member.identity for member in self.living}

    def cancel(self) -> None:
        self.post(ev.Cancelled(reason="its client went away or cancelled it"))

    def post(self, event: ev.Event) -> None:
        if self.coordinator is None or self.coordinator.ended:
            return
        if isinstance(event, ev.TaskSucceeded):
            self.world.checks.committed(self.plan.job_id, event)
        if isinstance(event, ev.Prepared):
            self.world.checks.prepared(self.plan.job_id, event)
        commands = self.coordinator.handle(event)
        if isinstance(event, ev.TaskSucceeded):
            self.world.happen("committed", event.agent, "task %s.%s#%s", event.stage_id, event.task, event.attempt)
        for command in commands:
            self.world.say("command", "%s", _sketch(command))
            self._carry_out(command)
        self._look_for_newcomers()

    def _look_for_newcomers(self) -> None:
        """Who lives at an address that none of the job's agents has had."""
        known = {member.flight_address for member in (*self.agents, *self._client.members)}
        for agent in self.world.agents:
            if agent.address not in known and not agent.process.dead:
                self.agents.append(agent.member)
                place = len(self.agents) - 1
                self._watches.append(Watch(self.agent, agent.member, partial(self._lost, place)))
                self.post(ev.AgentJoined(member=agent.member))
                return

    def _pinged(self, place: int, answer: Any) -> None:
        self._pings[place] = answer
        if len(self._pings) < len(self._client.members) or self.coordinator is not None:
            return
        members = self._client.members
        self.agents = [member for place, member in enumerate(members) if self._pings[place] == member.incarnation]
        self.founders = len(self.agents)
        holders = {piece.flight_address for pieces in self.plan.uploads.values() for piece in pieces}
        missing = holders - {member.flight_address for member in self.agents}
        if missing:
            self._client.failed(to_failure(PeerLost(f"{missing} with rows of the job did not answer")))
            return
        self.coordinator = Coordinator(
            plan=self.plan,
            agents=self.agents,
            partitions_per_slot=2,
            split_bytes=1,
            slow=self.world.slow,
            ranges=RangeRule(rows_min=1),
        )
        for number, member in enumerate(self.agents):
            if member.identity != self.agent.member.identity:
                self._watches.append(Watch(self.agent, member, partial(self._lost, number)))
        self._began_s = self.world.clock.now_s
        self._tell_time()
        self.post(ev.JobStarted())

    def _tell_time(self) -> None:
        assert self.coordinator is not None
        if not self.coordinator.ended:
            self.post(ev.TimePassed(elapsed_s=self.world.clock.now_s - self._began_s))
            self.agent.later(TELL_TIME_EVERY_S, self._tell_time)

    def _lost(self, place: int, error: SabotError) -> None:
        self.post(ev.AgentLost(agent=place, failure=to_failure(error)))

    def _carry_out(self, command: ev.Command) -> None:
        assert self.coordinator is not None
        match command:
            case ev.Prepare(agent=place, table=table):
                agents = list(self.agents)
                argument = (self.plan, self.coordinator.num_partitions, agents, self.agent.member, table)
                self._call(self.agents[place], "prepare", argument, partial(self._prepared, place), PREPARE_DEADLINE_S)
            case ev.Reown(agent=place, table=table):
                answer = partial(self._reowned, place, table.epoch)
                argument = (self.plan.job_id, list(self.agents), table)
                self._call(self.agents[place], "reown", argument, answer, PEER_DEADLINE_S)
            case ev.CheckAgents(table=table):
                self._check_agents(table)
            case ev.CancelTask(stage_id=stage_id, task=task, attempt=attempt):
                self.world.checks.task_cancelled(self.plan.job_id, command)
                call = self._attempts.pop((stage_id, task, attempt), None)
                if call is not None:
                    call.cancel()
            case ev.StartTask(agent=place):
                self.world.checks.task_started(self.plan.job_id, command)
                answer = partial(self._task_ended, command)
                call = self._call(self.agents[place], "run_task", (self.plan.job_id, command), answer)
                if call is not None:
                    self._attempts[command.stage_id, command.task, command.attempt] = call
            case ev.EndJob(agent=place, keep_result=keep_result):
                self._untold += 1
                argument = (self.plan.job_id, keep_result)
                self._send(self.agents[place], "end_job", argument, self._told, PEER_DEADLINE_S)
            case ev.Finish(finished=finished):
                self.agent.keepers[self.plan.job_id] = self.identities
                self._end()
                self._client.finished(finished)
            case ev.Fail(failure=failure):
                self._end()
                self._client.failed(failure)

    def _prepared(self, place: int, answer: Any) -> None:
        if isinstance(answer, SabotError):
            self.post(ev.PrepareFailed(agent=place, failure=to_failure(answer)))
        else:
            self.post(ev.Prepared(agent=place))

    def _task_ended(self, command: ev.StartTask, answer: Any) -> None:
        which = {name: getattr(command, name) for name in ("agent", "stage_id", "task", "attempt")}
        if isinstance(answer, PeerLost):  # it takes no commands, whatever it says to pings
            self._lost(command.agent, answer)
        elif isinstance(answer, SabotError):
            self.post(ev.TaskFailed(**which, failure=to_failure(answer)))
        elif isinstance(answer, RunTaskReply) and answer.HasField("failure"):
            self.post(ev.TaskFailed(**which, failure=answer.failure))
        else:
            self.post(ev.TaskSucceeded(**which, reply=answer))

    def _reowned(self, place: int, epoch: int, answer: Any) -> None:
        if isinstance(answer, SabotError):
            self.post(ev.ReownFailed(agent=place, epoch=epoch, failure=to_failure(answer)))
        else:
            self.post(ev.Reowned(agent=place, epoch=epoch))

    def _check_agents(self, table: OwnerTable) -> None:
        """Pings them, and tells them again who owns what: one that refuses has the job no longer."""
        assert self.coordinator is not None
        asked = [p for p in self.coordinator.living if self.agents[p].identity != self.agent.member.identity]
        waited_for = set(asked)

        def heard(place: int, error: SabotError | None) -> None:
            if error is not None:
                self._lost(place, error)
            waited_for.discard(place)
            if not waited_for:
                self.post(ev.AgentsChecked())

        def holds(place: int, answer: Any) -> None:
            if isinstance(answer, (PeerRefused, JobCancelled)):
                heard(place, answer)
            else:  # whether it lives is for the ping to say
                self._calls.append(Ping(self.agent, self.agents[place], partial(heard, place)))

        for place in asked:
            argument = (self.plan.job_id, list(self.agents), table)
            self._call(self.agents[place], "reown", argument, partial(holds, place), PEER_DEADLINE_S)
        if not asked:
            self.post(ev.AgentsChecked())

    def _told(self, answer: Any) -> None:
        self._untold -= 1
        if not self._untold and self.coordinator is not None and self.coordinator.ended:
            self.agent.drivers.pop(self.plan.job_id, None)

    def _end(self) -> None:
        for call in self._calls:
            call.cancel()
        for watch in self._watches:
            watch.stop()

    def _call(
        self, member: Member, method: str, argument: Any, answer: Any, timeout_s: float | None = None
    ) -> Call | None:
        """A call that the job's end cancels."""
        call = self._send(member, method, argument, answer, timeout_s)
        if call is not None:
            self._calls.append(call)
        return call

    def _send(self, member: Member, method: str, argument: Any, answer: Any, timeout_s: float | None) -> Call | None:
        if member.identity == self.agent.member.identity:
            self.agent.later(0.0, lambda: self.agent.on_call(method, argument, answer))
            return None
        return self.world.network.call(
            self.agent, member.flight_address, method, argument, answer=answer, timeout_s=timeout_s
        )


def answer_of(finished: JobFinished) -> list[tuple[int, str]]:
    """Where the parts of the answer are: (partition, address)."""
    return [(part.partition, part.flight_address) for part in finished.partitions]


def _sketch(command: ev.Command) -> str:
    """One line for a trace."""
    if isinstance(command, ev.Reown):
        return f"Reown {command.agent} epoch {command.table.epoch} owners {command.table.owners}"
    if isinstance(command, ev.CancelTask):
        return f"CancelTask {command.stage_id}.{command.task}#{command.attempt} on agent {command.agent}"
    if isinstance(command, ev.StartTask):
        inputs = ", ".join(f"{stage_id}: {list(attempts)}" for stage_id, attempts in command.inputs)
        task = f"{command.stage_id}.{command.task}#{command.attempt}"
        parts = "" if command.partitions is None else f" sending {sorted(command.partitions)}"
        return f"StartTask {task} on agent {command.agent}{parts}" + (f" reading {inputs}" if inputs else "")
    return type(command).__name__ + (f" {command.agent}" if hasattr(command, "agent") else "")
