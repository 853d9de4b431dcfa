"""The part of one agent in jobs, whoever coordinates them: what sabot.agent.jobs.job_state and coordinator_watch do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sabot.agent.coordination.job_journal import KeptJournal
from sabot.agent.coordination.owner_table import OwnerTable
from sabot.agent.coordination.takeover import to_wire_table
from sabot.agent.jobs.job_fence import JobFence
from sabot.dataflow.stage import JobPlan
from sabot.errors import JobCancelled, JobTakenOver, PeerRefused, SabotError
from sabot.wire.agent_pb2 import JobJournal, TakeOverJobReply
from sabot.wire.convert import to_agent
from sabot.wire.member import Member

from .watch import PEER_DEADLINE_S, Watch

if TYPE_CHECKING:
    from .agent import Agent
    from .task import Task

TAKEOVER_S = 15.0

Answer = Callable[[Any], None]


class HeldJob:
    """A prepared job, the newest owner table that is known here, and the journal."""

    def __init__(
        self,
        plan: JobPlan,
        num_partitions: dict[int, int],
        agents: list[Member],
        coordinator: Member,
        table: OwnerTable,
    ) -> None:
        self.plan = plan
        self.num_partitions = num_partitions
        self.agents = agents
        self.coordinator = coordinator
        self.table = table
        self.journal = KeptJournal()
        self.keep_result = False
        self.tasks: set[Task] = set()
        self.watch: Watch | None = None
        self.watched = 0  # how many coordinators have been watched: a check of an earlier one is void


class HeldJobs:
    """`jobs` by their ids; those that have `ended` are remembered."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.fence = JobFence(agent.member.agent_id)
        self.jobs: dict[str, HeldJob] = {}
        self.ended: set[str] = set()

    def on_call(self, method: str, argument: Any, answer: Answer) -> None:
        try:
            match method:
                case "prepare":
                    self._prepare(HeldJob(*argument))
                case "reown":
                    self._reown(*argument)
                case "record":
                    self._record(*argument)
            answer(None)
        except SabotError as error:
            answer(error)

    def get(self, job_id: str) -> HeldJob:
        """The job; raises why it is not held here."""
        held = self.jobs.get(job_id)
        if held is None and job_id in self.ended:
            raise JobCancelled(f"job {job_id} has ended on agent {self._agent.member.agent_id}")
        if held is None:
            raise PeerRefused(f"agent {self._agent.member.agent_id} knows no job {job_id}: it was not prepared here")
        return held

    def take_over(self, job_id: str, epoch: int, coordinator: Member, meant: Member) -> TakeOverJobReply:
        """Another agent coordinates the job from now on: what earlier ones have begun here ends."""
        agent = self._agent
        if meant.identity != agent.member.identity:
            raise PeerRefused(f"agent {meant.agent_id} was restarted, and has nothing of job {job_id}")
        self.fence.admit(job_id, epoch)
        driver = agent.drivers.get(job_id)
        if driver is not None and driver.epoch < epoch:
            driver.drop()
        held = self.jobs.get(job_id)
        if held is None:
            return TakeOverJobReply(ended=job_id in self.ended)
        self._watch(held, coordinator)
        for task in sorted(held.tasks, key=lambda task: task.number):
            task.cancel()
        agent.world.happen("taken over", agent.place, "job %s epoch %#x", job_id, epoch)
        counts = held.num_partitions
        return TakeOverJobReply(
            held=True,
            agents=[to_agent(member) for member in held.agents],
            num_partitions=[counts.get(stage_id, 0) for stage_id in range(max(counts, default=-1) + 1)],
            table=to_wire_table(held.table),
            journal=held.journal.message(),
        )

    def orphan(self, job_id: str) -> None:
        """This agent drove the job, and another does; unless that one calls, there is no part in it for this one."""
        held = self.jobs.get(job_id)
        if held is not None:
            self._end_late(held, held.watched)

    def _prepare(self, held: HeldJob) -> None:
        job_id = held.plan.job_id
        self.fence.admit(job_id, held.table.epoch)
        known = self.jobs.get(job_id)
        if known is not None and any(a != b for a, b in zip(known.agents, held.agents, strict=False)):
            raise PeerRefused(f"job {job_id} is held here with other agents")
        if job_id not in self.jobs:
            if job_id in self.ended:
                self.get(job_id)
            self.jobs[job_id] = held
            self._agent.open_shuffles(held)
            self._watch(held, held.coordinator)
        self._agent.world.happen("prepared", self._agent.place, "job %s", job_id)

    def _reown(self, job_id: str, agents: list[Member], table: OwnerTable, keep_result: bool) -> None:
        self.fence.admit(job_id, table.epoch)
        held = self.get(job_id)
        held.agents = max(held.agents, agents, key=len)
        given_up = [held.agents[agent].incarnation for agent in table.lost]
        for name, shuffle in self._agent.shuffles.items():
            if name.startswith(f"{job_id}/"):
                shuffle.book.reown(table.epoch, table.owners, given_up)
        if table.epoch >= held.table.epoch:  # one that was overtaken changes nothing
            held.table, held.keep_result = table, keep_result
        for task in sorted(held.tasks, key=lambda task: task.number):
            task.reowned(table.epoch)
        for name in [name for name in self._agent.shuffles if name.startswith(f"{job_id}/")]:
            self._agent.look_again(name)
        self._agent.world.happen("reowned", self._agent.place, "job %s epoch %#x", job_id, table.epoch)

    def _record(self, job_id: str, update: JobJournal, agents: list[Member]) -> None:
        self.fence.admit(job_id, update.epoch)
        held = self.get(job_id)
        held.agents = max(held.agents, agents, key=len)
        if not held.journal.keep(update):
            raise PeerRefused(f"something before record {update.first} of job {job_id} is missing")
        self._agent.world.happen("recorded", self._agent.place, "job %s", job_id)

    def _watch(self, held: HeldJob, coordinator: Member) -> None:
        if held.watch is not None:
            held.watch.stop()
        held.coordinator, held.watch = coordinator, None
        held.watched += 1
        watched = held.watched
        if coordinator.identity != self._agent.member.identity:
            held.watch = Watch(self._agent, coordinator, lambda _: self._end_late(held, watched))
            self._agent.later(PEER_DEADLINE_S, lambda: self._check(held, watched))

    def _check(self, held: HeldJob, watched: int) -> None:
        """Asks the coordinator now and then whether this agent still takes part."""
        if not self._is_of(held, watched):
            return

        def answered(answer: Any) -> None:
            if not self._is_of(held, watched):
                return
            if isinstance(answer, JobTakenOver):  # by one that has not called here yet, or never will
                self._end_late(held, watched)
                return
            if isinstance(answer, SabotError) or answer[0]:
                self._agent.later(PEER_DEADLINE_S, lambda: self._check(held, watched))
                return
            agent.world.say("task", "agent-%s takes no part in job %s any more", agent.place, job_id)
            agent.end_job(job_id, keep_result=answer[1])

        agent, job_id = self._agent, held.plan.job_id
        argument = (job_id, agent.member.identity, held.coordinator, held.table.epoch)
        address = held.coordinator.flight_address
        agent.world.network.call(agent, address, "check_job", argument, answer=answered, timeout_s=PEER_DEADLINE_S)

    def _end_late(self, held: HeldJob, watched: int) -> None:
        """Nobody drives the job; it is kept for a while for whoever takes it over."""

        def end() -> None:
            if self._is_of(held, watched):
                agent.world.say("task", "agent-%s takes job %s for dead", agent.place, held.plan.job_id)
                agent.end_job(held.plan.job_id, keep_result=held.keep_result)

        agent = self._agent
        agent.later(TAKEOVER_S, end)

    def _is_of(self, held: HeldJob, watched: int) -> bool:
        return self.jobs.get(held.plan.job_id) is held and held.watched == watched
