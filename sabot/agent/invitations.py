"""Finds the agents that have joined the cluster since a job began, and those of the job that leave it.

Used on the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sabot.agent.peer_watch import PeerWatch
from sabot.wire.member import Member


class Invitations:
    """Of one job. `members` gives those of the cluster, as far as they are known now."""

    def __init__(self, members: Callable[[], Sequence[Member]], watch: PeerWatch) -> None:
        self._members = members
        self._watch = watch
        self.sent: set[tuple[str, int]] = set()
        self._leaving: set[tuple[str, int]] = set()

    def due(self, agents: Sequence[Member]) -> list[Member]:
        """Who is to be asked now, of those that are none of the job's `agents`. An agent started anew at the address of
        one of these is for later jobs: here its chunks would be taken for the old one's.
        """
        known = {agent.flight_address for agent in agents}
        members = [member for member in self._members() if member.flight_address not in known and not member.draining]
        new = [member for member in members if member.identity not in self.sent]
        self.sent.update(member.identity for member in new)
        return new

    def leavers(self, agents: Sequence[Member]) -> list[int]:
        """The job's agents, by index, that have begun to drain since this was last asked."""
        draining = {member.identity for member in self._members() if member.draining} - self._leaving
        self._leaving |= draining
        return [index for index, agent in enumerate(agents) if agent.identity in draining]

    async def is_accepted(self, member: Member, agents: Sequence[Member]) -> bool:
        """Whether it answers, and nobody has come from its address meanwhile. One that does not answer now is left out
        for good, as it would have been at the job's start.
        """
        answering, _ = await self._watch.answering([member])
        return bool(answering) and member.flight_address not in {agent.flight_address for agent in agents}
