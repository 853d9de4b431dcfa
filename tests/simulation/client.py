"""The user's side of one job: submits it, hears how it ended, fetches the answer and lets go of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sabot.dataflow.stage import JobPlan
from sabot.errors import SabotError
from sabot.wire.agent_pb2 import Failure, JobFinished
from sabot.wire.failure import from_failure

from .clock import Process
from .driver import Driver, answer_of
from .jobs import MARK
from .network import Answer, Stream

if TYPE_CHECKING:
    from .agent import Agent
    from .cluster import Cluster

FETCH_TIMEOUT_S = 30.0


class Client:
    """`error` or `rows` once it has `ended`."""

    address = "client"

    def __init__(self, world: Cluster, agent: Agent, plan: JobPlan) -> None:
        self.world, self.plan, self._agent = world, plan, agent
        self.process = Process("client")
        self.members = [other.member for other in world.agents if not other.process.dead]
        self.finished_rows: dict[int, tuple[int, ...]] = {}
        self.error: BaseException | None = None
        self.got_answer = False
        self.second_attempts = 0
        self.joined = 0  # agents that came while it ran and took part
        self.coordinator_lost = False
        self.ended_s: float | None = None
        self._parts_left = 0
        self.driver = Driver(agent, plan, self)

    @property
    def ended(self) -> bool:
        return self.ended_s is not None

    @property
    def rows(self) -> list[int]:
        """Without their marks."""
        return sorted(row % MARK for rows in self.finished_rows.values() for row in rows)

    def on_call(self, method: str, argument: Any, answer: Answer) -> None:
        raise AssertionError("nobody calls a client")

    def on_message(self, stream: Stream) -> None:
        raise AssertionError("nobody sends to a client")

    def on_end(self, stream: Stream) -> None:
        raise AssertionError("nobody sends to a client")

    @property
    def epoch(self) -> int:
        """How often its owner table was changed."""
        coordinator = self.driver.coordinator
        return 0 if coordinator is None else len(self.driver.agents) - len(coordinator.living)

    def coordinator_died(self) -> None:
        """Its stream of events broke."""
        if not self.ended and not self.got_answer:
            self.coordinator_lost = True
            self._end(None)

    def failed(self, failure: Failure) -> None:
        self._end(from_failure(failure))

    def finished(self, finished: JobFinished) -> None:
        self.world.checks.receipts(self.plan, finished)
        self.got_answer = True
        self.joined = len(finished.agents_joined)
        self.second_attempts = sum(stage.second_attempts for stage in finished.stages)
        parts = answer_of(finished)
        self._parts_left = len(parts)
        self.world.say("client", "job %s has finished, %s partitions", self.plan.job_id, len(parts))
        for partition, address in parts:
            self.world.network.call(
                self,
                address,
                "fetch",
                (self.plan.job_id, partition),
                answer=partial(self._fetched, partition),
                timeout_s=FETCH_TIMEOUT_S,
            )

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
        self.error = error
        self.ended_s = self.world.clock.now_s
        self.world.say("client", "job %s ends: %s", self.plan.job_id, error or "with an answer")
