"""Who coordinates one job, as its client decides: when that agent is lost, another one takes the job over.

Each coordinator of the job has an epoch, and only the latest one's word counts: its events, its answer, its wish to
publish. The agents know the latest, too, and refuse those before it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

from sabot.client.control import ControlClient, JobStream
from sabot.client.coordinators import Coordinators, answers
from sabot.client.flight import ping_agent
from sabot.errors import PeerError, PeerRefused, SabotError
from sabot.wire.agent_pb2 import JobAccepted
from sabot.wire.convert import from_agent, to_agent
from sabot.wire.member import Member

log = logging.getLogger("sabot.client")

_EPOCHS_OF_A_COORDINATOR = 1 << 16
_TURNS_MAX = 3
"""How often an agent may coordinate one job: a connection that breaks may be all that was wrong with it."""

Replan = Callable[[str, Member], bytes]
"""The packed plan where the agent at a Flight address is lost: what lay there lies on the other agent now."""


class Seat:
    """The seat of one job's coordinator, for the thread that follows the job. `plan` is the packed plan."""

    def __init__(self, coordinators: Coordinators, job_id: str, plan: bytes, *, replan: Replan) -> None:
        self.job_id = job_id
        self.epoch = 0
        self.member = coordinators.agent
        self._coordinators = coordinators
        self._plan = plan
        self._replan = replan
        self._agents: Sequence[Member] = ()  # of the job, once it is accepted
        self._turns: Counter[tuple[str, int]] = Counter()
        self._deadline_s = coordinators.silence_s_max
        self._lost: SabotError | None = None

    @property
    def control(self) -> ControlClient:
        return self._coordinators.control_of(self.member)

    @property
    def taken_over(self) -> bool:
        """Whether the job has had another coordinator before."""
        return self.epoch > 0

    def submit(self) -> JobStream:
        """The events of the job under its coordinator."""
        agents = [to_agent(agent) for agent in self._agents] if self.epoch else []
        return self.control.submit_job(self.job_id, self._plan, epoch=self.epoch, agents=agents)

    def accepted(self, accepted: JobAccepted) -> None:
        """The coordinator drives the job, over these agents."""
        self._agents = [from_agent(agent) for agent in accepted.agents]
        self._deadline_s = accepted.peer_deadline_s or self._deadline_s

    def check_alive(self) -> None:
        """Raises PeerLost where the coordinator does not answer within the cluster's deadline."""
        ping_agent(self.member.flight_address, self.member.incarnation, timeout_s=self._deadline_s)

    def grant_publish(self) -> None:
        self.control.grant_publish(self.job_id, self.epoch)

    def succeed(self, error: SabotError) -> None:
        """The coordinator is lost, by `error`, or what was uploaded to another agent: finds an agent that is to go on.
        Raises how the first was lost where none is left that could.
        """
        lost = self.member
        self._lost = self._lost or error
        self._turns[lost.identity] += _TURNS_MAX if isinstance(error, PeerRefused) else 1
        candidates, address = self._candidates(lost), error.facts.get("upload", lost.flight_address)
        for member in [*candidates, *candidates]:  # a connection that breaks once is no death
            if not answers(member):
                continue
            if "upload" in error.facts:
                log.warning("uploaded rows lost, sending them again job=%s address=%s", self.job_id, address)
            else:
                log.warning("coordinator lost job=%s agent=%s error=%s", self.job_id, lost.agent_id, error.message)
            try:
                self._plan = self._replan(address, member)
            except PeerError as failed:
                error = failed
                continue
            self.epoch += _EPOCHS_OF_A_COORDINATOR
            self.member = member
            self._coordinators.move_to(member)
            return
        if error is not self._lost:
            self._lost.add_note(f"no other agent could take the job over; the last one: {error.message}")
        raise self._lost

    def confirm(self) -> None:
        """The job has finished, by the word of its last coordinator, which may have it let go of everywhere."""
        self._coordinators.keep(self.job_id, self.member)
        self.control.confirm_job(self.job_id, self.epoch)
        self._coordinators.keep(self.job_id, self.member)

    def _candidates(self, lost: Member) -> list[Member]:
        """Those that have not coordinated the job yet before the others, and the one that is lost last."""
        members = [member for member in self._agents or self._coordinators.members if not member.draining]
        able = [member for member in members if self._turns[member.identity] < _TURNS_MAX]
        return sorted(able, key=lambda member: (self._turns[member.identity], member.identity == lost.identity))
