"""Whom a session asks: the agent that it was made with, and when that is lost another one that it knows of.

It holds the control channels to the agents that have coordinated jobs of the session.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from sabot.client.control import ControlClient
from sabot.client.flight import ping_agent
from sabot.errors import PeerError, PeerLost
from sabot.wire.member import Member

_PING_TIMEOUT_S = 1.0

T = TypeVar("T")


class Coordinators:
    """Thread-safe: every job of a session may move it to another agent. An agent that answers nothing for
    `silence_s_max` is lost: the cluster's own deadline, where that is known.
    """

    def __init__(
        self,
        control: ControlClient,
        agent: Member,
        members: Sequence[Member],
        *,
        peer_deadline_s: float | None = None,
    ) -> None:
        self.timeout_s = control.timeout_s
        self.silence_s_max = control.timeout_s if peer_deadline_s is None else peer_deadline_s
        self._lock = threading.Lock()  # guards all below
        self._agent = agent
        self._members = [agent, *(member for member in members if member.identity != agent.identity)]
        self._controls = {agent.control_address: control}
        self._kept_by: dict[str, ControlClient] = {}  # who coordinated the job of a result

    @property
    def agent(self) -> Member:
        """The agent that is asked now."""
        return self._agent

    @property
    def control(self) -> ControlClient:
        return self.control_of(self._agent)

    @property
    def members(self) -> list[Member]:
        """Who was in the cluster when it was last looked at."""
        with self._lock:
            return list(self._members)

    def control_of(self, member: Member) -> ControlClient:
        with self._lock:
            control = self._controls.get(member.control_address)
            if control is None:
                control = ControlClient(member.control_address, timeout_s=self.timeout_s)
                self._controls[member.control_address] = control
            return control

    def move_to(self, member: Member) -> None:
        """From now on `member` is asked."""
        with self._lock:
            self._agent = member

    def list_agents(self) -> list[Member]:
        """The members of the cluster now."""
        soon_s = min(self.timeout_s, self.silence_s_max)  # it knows them by heart
        members = self.ask(lambda control: control.list_agents(timeout_s=soon_s))
        with self._lock:
            self._members = members
        return list(members)

    def ask(self, call: Callable[[ControlClient], T]) -> T:
        """What the session's agent answers to `call`, or where it is lost another member; then that one is asked later,
        too. PeerLost names the session's agent where no other member answers.
        """
        lost = self._agent
        try:
            return call(self.control)
        except PeerLost as error:
            for member in self.members:
                if member.identity != lost.identity and not member.draining and answers(member):
                    self.move_to(member)
                    return call(self.control)
            raise error

    def keep(self, job_id: str, member: Member) -> None:
        """`member` is the one to ask for the release of the job's result."""
        control = self.control_of(member)
        with self._lock:
            self._kept_by[job_id] = control

    def release(self, job_id: str) -> None:
        """Frees the job's result; raises nothing."""
        with self._lock:
            control = self._kept_by.pop(job_id, None)
        (control or self.control).release_job(job_id)

    def close(self) -> None:
        with self._lock:
            for control in self._controls.values():
                control.close()


def answers(member: Member, *, timeout_s: float = _PING_TIMEOUT_S) -> bool:
    """Whether the member lives: one that died or froze stays listed until it is replaced."""
    try:
        ping_agent(member.flight_address, member.incarnation, timeout_s=timeout_s)
    except PeerError:
        return False
    return True
