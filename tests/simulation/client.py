"""The user's side of one job: submits it, hears how it ended, fetches the answer and lets go of it. Where the
coordinator is lost, it has another agent take the job over, as sabot.client.seat does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sabot.agent.coordination.owner_table import EPOCHS_OF_A_COORDINATOR
from sabot.dataflow.stage import JobPlan
from sabot.errors import JobCancelled, JobTakenOver, PeerLost, PeerRefused, SabotError
from sabot.wire.agent_pb2 import Failure, JobFinished
from sabot.wire.failure import from_failure
from sabot.wire.member import Member

from .clock import Process, Timer
from .driver import Driver, answer_of
from .jobs import MARK
from .network import Answer, Stream
from .watch import Watch

if TYPE_CHECKING:
    from .agent import Agent
    from .cluster import Cluster

FETCH_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 10.0
PING_S = 1.0
TURNS_MAX = 3


class Client:
    """`error` or `rows` once it has `ended`."""

    address = "client"

    def __init__(self, world: Cluster, agent: Agent, plan: JobPlan) -> None:
        self.world, self.plan, self.member = world, plan, agent.member
        self.process = Process("client")
        self.members = [other.member for other in world.takers]
        self.epoch = 0
        self.driver: Driver | None = None  # the latest
        self.finished_rows: dict[int, tuple[int, ...]] = {}
        self.error: BaseException | None = None
        self.got_answer = False
        self.second_attempts = 0
        self.tasks_redone = 0
        self.joined = 0  # agents that came while it ran and took part
        self.ended_s: float | None = None
        self._listens = True  # to the stream of this epoch
        self._agents: list[Member] = []
        self._turns: Counter[tuple[str, int]] = Counter()
        self._lost: SabotError | None = None
        self._lost_address = ""  # where what was uploaded is lost
        self._parts_left = 0
        self._watch = Watch(self, self.member, self._on_lost)
        agent.on_call("submit", (plan, self, 0, self.members), lambda _: None)

    def later(self, delay_s: float, act: Callable[[], None], *, deadline: bool = False) -> Timer:
        return self.world.clock.after(delay_s, self.process, act, deadline=deadline)

    @property
    def ended(self) -> bool:
        return self.ended_s is not None

    @property
    def rows(self) -> list[int]:
        """Without their marks."""
        return sorted(row % MARK for rows in self.finished_rows.values() for row in rows)

    @property
    def takeovers(self) -> int:
        return self.epoch // EPOCHS_OF_A_COORDINATOR

    @property
    def agents_lost(self) -> int:
        """How many agents the job has given up."""
        coordinator = self.driver.coordinator if self.driver is not None else None
        return 0 if coordinator is None or self.driver is None else len(self.driver.agents) - len(coordinator.living)

    def on_call(self, method: str, argument: Any, answer: Answer) -> None:
        raise AssertionError("nobody calls a client")

    def on_message(self, stream: Stream) -> None:
        raise AssertionError("nobody sends to a client")

    def on_end(self, stream: Stream) -> None:
        raise AssertionError("nobody sends to a client")

    # The stream of events

    def hear(self, driver: Driver, what: Callable[[], None]) -> None:
        """`driver` tells it something; heard is only the latest."""

        def take() -> None:
            if driver.epoch == self.epoch and self._listens and not self.ended:
                what()

        self.world.network.tell(driver.agent, self, take)

    def agent_died(self, agent: Agent) -> None:
        """A connection to it breaks, where there is one."""
        if agent.member.identity == self.member.identity:
            epoch = self.epoch
            self.later(self.world.network.delay_s(), lambda: self.break_stream(epoch))

    def break_stream(self, epoch: int | None = None) -> None:
        """Its stream of events from the coordinator of `epoch` breaks, or that of the latest."""
        if epoch is None or epoch == self.epoch:
            self._on_lost(PeerLost("the connection was reset", address=self.member.control_address))

    def accepted(self, agents: list[Member]) -> None:
        self._agents = agents

    def failed(self, failure: Failure) -> None:
        error = from_failure(failure)
        refused = self.epoch > 0 and self.driver is not None and self.driver.coordinator is None
        lost_upload = isinstance(error, PeerLost) and "upload" in error.facts
        if lost_upload or isinstance(error, JobTakenOver) or (refused and isinstance(error, SabotError)):
            self._on_lost(error)
        else:
            self._end(error)

    def finished(self, finished: JobFinished) -> None:
        self.world.checks.receipts(self.plan, finished)
        self.got_answer = True
        self.joined = len(finished.agents_joined)
        self._watch.stop()
        self.tasks_redone = sum(stage.tasks_redone for stage in finished.stages)
        self.second_attempts = sum(stage.second_attempts for stage in finished.stages)
        parts = answer_of(finished)
        self._parts_left = len(parts)
        self.world.say("client", "job %s has finished, %s partitions", self.plan.job_id, len(parts))
        self._tell("confirm")
        self._end_stream()
        if not parts:
            self._end(None)
        for partition, attempt, address in parts:
            self.world.network.call(
                self,
                address,
                "fetch",
                (self.plan.job_id, partition, attempt),
                answer=partial(self._fetched, partition),
                timeout_s=FETCH_TIMEOUT_S,
            )

    def asked_to_publish(self) -> None:
        """By its latest coordinator: earlier ones are not heard."""
        epoch = self.epoch

        def answered(answer: Any) -> None:
            if isinstance(answer, SabotError) and epoch == self.epoch:
                self._on_lost(answer)

        argument, address = (self.plan.job_id, epoch), self.member.flight_address
        self.world.network.call(self, address, "grant publish", argument, answer=answered, timeout_s=CALL_TIMEOUT_S)

    def cancel(self) -> None:
        if not self.ended and not self.got_answer:
            self._tell("cancel job")
            self._end_stream()
            self._end(JobCancelled("by its client"))

    # Another coordinator

    def _on_lost(self, error: SabotError) -> None:
        """The coordinator is lost, or the way to it: another agent is to go on."""
        if self.ended or self.got_answer:
            return
        self.world.say("client", "job %s has lost its coordinator: %s", self.plan.job_id, error)
        self._watch.stop()
        self._listens = False
        self._end_stream()
        self._lost = self._lost or error
        self._lost_address = error.facts.get("upload", self.member.flight_address)
        self._turns[self.member.identity] += TURNS_MAX if isinstance(error, PeerRefused) else 1
        members = self._agents or self.members
        able = [member for member in members if self._turns[member.identity] < TURNS_MAX]
        last = self.member.identity
        able.sort(key=lambda member: (self._turns[member.identity], member.identity == last))
        self._ask([*able, *able])

    def _ask(self, candidates: list[Member]) -> None:
        if not candidates:
            self._end(self._lost)
            return
        member, *others = candidates

        def answered(answer: Any) -> None:
            if self.ended:
                return
            if answer == member.incarnation:
                self._submit(member)
            else:
                self._ask(others)

        self.world.network.call(self, member.flight_address, "ping", None, answer=answered, timeout_s=PING_S)

    def _submit(self, member: Member) -> None:
        self.plan = _moved(self.plan, self._lost_address, member.flight_address)
        self.member = member
        self.epoch += EPOCHS_OF_A_COORDINATOR
        self._listens = True
        epoch = self.epoch
        self.world.say("client", "job %s is to be taken over by %s", self.plan.job_id, member.agent_id)

        def answered(answer: Any) -> None:
            if isinstance(answer, SabotError) and epoch == self.epoch:
                self._on_lost(answer)

        argument = (self.plan, self, epoch, self._agents or self.members)
        address = member.flight_address
        self.world.network.call(self, address, "submit", argument, answer=answered, timeout_s=CALL_TIMEOUT_S)
        self._watch = Watch(self, member, self._on_lost)

    def _tell(self, what: str) -> None:
        """Something to its coordinator, which may hear it or not."""
        argument = (self.plan.job_id, self.epoch)
        address = self.member.flight_address
        self.world.network.call(self, address, what, argument, answer=lambda _: None, timeout_s=CALL_TIMEOUT_S)

    def _end_stream(self) -> None:
        """Which the coordinator hears of as long as it lives."""
        agent, argument = self.world.living(self.member), (self.plan.job_id, self.epoch)
        if agent is not None:
            self.world.network.tell(self, agent, lambda: agent.on_call("stream ended", argument, lambda _: None))

    def _fetched(self, partition: int, answer: Any) -> None:
        if self.ended or partition in self.finished_rows:
            return
        if isinstance(answer, SabotError):
            self._end(answer)
            return
        self.finished_rows[partition] = answer
        self._parts_left -= 1
        if not self._parts_left:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        self._watch.stop()
        self.error = error
        self.ended_s = self.world.clock.now_s
        self.world.say("client", "job %s ends: %s", self.plan.job_id, error or "with an answer")


def _moved(plan: JobPlan, lost: str, address: str) -> JobPlan:
    """The client has uploaded what lay on a lost agent once more."""
    uploads = {
        table_id: tuple(
            replace(piece, flight_address=address) if piece.flight_address == lost else piece for piece in pieces
        )
        for table_id, pieces in plan.uploads.items()
    }
    return replace(plan, uploads=uploads)
