"""How a coordinator begins: it finds out who lives, or of a job that has lost its coordinator what the agents hold."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sabot.agent.coordination.takeover import Identity, agents_named, inherit, may_coordinate
from sabot.errors import JobTakenOver, PeerRefused, SabotError
from sabot.wire.agent_pb2 import Failure, TakeOverJobReply
from sabot.wire.failure import to_failure
from sabot.wire.member import Member

from .watch import PEER_DEADLINE_S

if TYPE_CHECKING:
    from .driver import Driver

FIRST_PING_S = 1.0


class Roll:
    """Pings all, as JobStarter does for a new job."""

    def __init__(self, driver: Driver, members: list[Member]) -> None:
        self._driver, self._members = driver, members
        self._answers: dict[Identity, Any] = {}
        for member in members:
            if member.identity == driver.agent.member.identity:
                self._answered(member, member.incarnation)
            else:
                driver.call(member, "ping", None, partial(self._answered, member), FIRST_PING_S)

    def _answered(self, member: Member, answer: Any) -> None:
        if member.identity in self._answers:
            return
        self._answers[member.identity] = answer
        if len(self._answers) == len(self._members):
            living = [one for one in self._members if self._answers[one.identity] == one.incarnation]
            self._driver.begin(living)


class Gathering:
    """Has all agents take the driver's for the coordinator, as sabot.agent.jobs.succession does."""

    def __init__(self, driver: Driver, members: list[Member]) -> None:
        self._driver = driver
        self._known: list[Member] = []
        self._awaited: set[Identity] = set()
        self._replies: dict[Identity, TakeOverJobReply] = {}
        self._failures: dict[Identity, Failure] = {}
        self._ask(members)

    def _ask(self, members: list[Member]) -> None:
        known = {member.identity for member in self._known}
        new = list({member.identity: member for member in members if member.identity not in known}.values())
        self._known += new
        self._awaited |= {member.identity for member in new}
        driver = self._driver
        for member in new:
            argument = (driver.plan.job_id, driver.epoch, driver.agent.member, member)
            driver.call(member, "take_over", argument, partial(self._answered, member), PEER_DEADLINE_S)

    def _answered(self, member: Member, answer: Any) -> None:
        if member.identity not in self._awaited or self._driver.dropped:
            return
        if isinstance(answer, JobTakenOver):
            self._driver.drop()
            return
        self._awaited.discard(member.identity)
        if isinstance(answer, SabotError):
            self._failures[member.identity] = to_failure(answer)
        else:
            self._replies[member.identity] = answer
        if not self._awaited:
            self._ask(agents_named(list(self._replies.values())))
        if not self._awaited:
            self._settle()

    def _settle(self) -> None:
        driver, replies = self._driver, self._replies
        inherited = inherit(replies, self._failures)
        if not may_coordinate(driver.agent.member, replies, inherited):
            driver.agent.end_job(driver.plan.job_id, keep_result=False)
            driver.refuse(PeerRefused(f"agent {driver.agent.member.agent_id} has no part in the job any more"))
        elif inherited is None:
            driver.begin([m for m in self._known if m.identity in replies and not replies[m.identity].ended])
        else:
            driver.begin(list(inherited.agents), inherited)
