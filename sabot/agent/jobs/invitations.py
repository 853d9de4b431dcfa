"""Finds the agents that have joined the cluster since a job began, and those of the job that leave it.

Used on the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sabot.agent.cluster.peer_watch import PeerWatch
from sabot.wire.member import Member


class Invitations:
    """Of one job. `members` gives those of the cluster, as far as they are known now."""

    def __init__(self, members: Callable[[], Sequence[Member]], watch: PeerWatch) -> None:
        self._members = members
        self._watch = watch
        self.sent: set[tuple[str, int]] = set()
        self._leaving: set[tuple[str, int]] = set()

    def due(self, agents: Sequence[Member], living: Sequence[Member]) -> list[Member]:
        """Who is to be asked now, of those that are none of the job's `agents`, of whom it still has those `living`."""
        known = self.sent.union(agent.identity for agent in agents)
        members = [member for member in self._members() if not member.draining and member.identity not in known]
        new = [member for member in members if is_free(member, living)]
        self.sent.update(member.identity for member in new)
        return new

    def leavers(self, agents: Sequence[Member]) -> list[int]:
        """The job's agents, by index, that have begun to drain since this was last asked."""
        draining = {member.identity for member in self._members() if member.draining} - self._leaving
        self._leaving |= draining
        return [index for index, agent in enumerate(agents) if agent.identity in draining]

    async def answers(self, member: Member) -> bool:
        """One that does not answer is due again: a connection to who was there before may have been kept."""
        answering, _ = await self._watch.answering([member])
        if not answering:
            self.sent.discard(member.identity)
        return bool(answering)


def is_free(member: Member, living: Sequence[Member]) -> bool:
    """Whether the job has nobody at its address. An agent that was started anew may come when the one before it has
    been given up, or has left: until then its chunks would be taken for the other's.
    """
    return member.flight_address not in {agent.flight_address for agent in living}
