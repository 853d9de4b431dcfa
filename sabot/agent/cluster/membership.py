"""Who belongs to the cluster, as one agent knows it: a state machine without I/O or clock, events in, commands out.

An agent that joins tells one member, which tells the others; with the answer in hand the new one introduces itself to
each of them too, so that two that join at the same moment through different members still meet. Identity is (agent_id,
incarnation), never an address: whoever comes to an address under another identity takes the place of who was there, and
an identity that is gone never comes back. What a command needs (probing, telling) is done by sabot.agent.cluster.peers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from sabot.errors import PeerRefused
from sabot.wire.member import Member

GONE_MAX = 4096
"""Identities remembered as gone; one more forgets the oldest, whose messages can hardly be under way any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Tell `to` that `about` is a member; its answer is the event `on_answer`."""

    to: Member
    about: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class TellLeft:
    """Tell `to` that `who` has left."""

    to: Member
    who: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Find out whether `holder` lives, whose agent_id `newcomer` claims; the answer is the event `on_probed`."""

    holder: Member
    newcomer: Member
    forwarded: bool


Message = Tell | TellLeft
Command = Message | Probe


class Membership:
    """The members known to `me`, itself included. Called from one thread only."""

    def __init__(self, me: Member) -> None:
        self._me = me
        self._others: dict[str, Member] = {}
        self._gone: dict[tuple[str, int], None] = {}

    @property
    def me(self) -> Member:
        """This agent, as others are told."""
        return self._me

    def members(self) -> list[Member]:
        """Everyone, `me` included, by agent_id; some may be draining, and some dead without our knowing."""
        return sorted([self._me, *self._others.values()], key=lambda member: member.agent_id)

    def on_join(self, newcomer: Member, *, forwarded: bool) -> list[Command]:
        """`newcomer` says, or a member says for it (`forwarded`), that it is a member; or what of it has changed.

        PeerRefused when it cannot be one. A Probe among the commands leaves the answer to `on_probed`.
        """
        if newcomer.identity == self._me.identity:
            return []
        self._refuse_impossible(newcomer)
        known = self._others.get(newcomer.agent_id)
        if known is None or known.identity == newcomer.identity or _share_address(known, newcomer):
            return self._admit(newcomer, forwarded)
        return [Probe(holder=known, newcomer=newcomer, forwarded=forwarded)]

    def on_probed(self, probe: Probe, *, alive: bool) -> list[Command]:
        """Whether the holder of the agent_id lives: then PeerRefused for the newcomer, else it takes its place."""
        holder = self._others.get(probe.newcomer.agent_id)
        if holder is None or holder.identity != probe.holder.identity:
            return self.on_join(probe.newcomer, forwarded=probe.forwarded)
        self._refuse_impossible(probe.newcomer)
        if alive:
            raise _taken(probe.newcomer, holder)
        return self._admit(probe.newcomer, probe.forwarded)

    def on_answer(self, members: Iterable[Member]) -> list[Tell]:
        """A member that was told about `me` says whom it knows; those that were unknown are told about `me` too.

        Others may have joined through this agent before it had joined itself: each side is told about the other.
        """
        known = list(self._others.values())
        new = [member for member in members if self._is_news(member)]
        for member in new:
            self._others[member.agent_id] = member
        introductions = [Tell(to=member, about=about) for member in new for about in (self._me, *known)]
        return introductions + [Tell(to=other, about=member) for member in new for other in known]

    def on_leave(self, leaver: Member) -> None:
        """`leaver` said goodbye. Another incarnation of it that is a member stays one."""
        known = self._others.get(leaver.agent_id)
        if known is not None and known.identity == leaver.identity:
            del self._others[leaver.agent_id]
        if leaver.identity != self._me.identity:
            self._remember_gone(leaver)

    def on_slots(self, slots: int) -> list[Tell]:
        """This agent has another number of slots."""
        return self._change_me(dataclasses.replace(self._me, slots=slots))

    def on_drain(self) -> list[Tell]:
        """This agent takes no more tasks."""
        return self._change_me(dataclasses.replace(self._me, draining=True))

    def on_stop(self) -> list[TellLeft]:
        """This agent goes."""
        return [TellLeft(to=member, who=self._me) for member in self._others.values()]

    def _admit(self, newcomer: Member, forwarded: bool) -> list[Command]:
        known = self._others.get(newcomer.agent_id)
        if known is not None and known.identity == newcomer.identity:
            # Messages overtake each other; draining is the one change that never goes back.
            newcomer = dataclasses.replace(newcomer, draining=newcomer.draining or known.draining)
        for other in list(self._others.values()):
            if other.identity != newcomer.identity and (
                other.agent_id == newcomer.agent_id or _share_address(other, newcomer)
            ):
                del self._others[other.agent_id]
                self._remember_gone(other)
        self._others[newcomer.agent_id] = newcomer
        if forwarded or newcomer == known:
            return []
        return [Tell(to=other, about=newcomer) for other in self._others.values() if other is not newcomer]

    def _refuse_impossible(self, newcomer: Member) -> None:
        if newcomer.identity in self._gone:
            raise PeerRefused(
                f"agent {newcomer.agent_id} at {newcomer.control_address} was replaced or has left, and an incarnation "
                "does not come back; start it anew",
                address=newcomer.control_address,
            )
        if newcomer.agent_id == self._me.agent_id:
            raise _taken(newcomer, self._me)
        if _share_address(newcomer, self._me):
            raise PeerRefused(
                f"agent {newcomer.agent_id} says that it is at {newcomer.control_address} (Flight "
                f"{newcomer.flight_address}), which is the address of agent {self._me.agent_id}; set its "
                "agent.advertise_host to the name or address by which others reach its node",
                address=newcomer.control_address,
            )

    def _is_news(self, member: Member) -> bool:
        return (
            member.agent_id != self._me.agent_id
            and member.agent_id not in self._others
            and member.identity not in self._gone
            and not any(_share_address(member, known) for known in self.members())
        )

    def _change_me(self, me: Member) -> list[Tell]:
        if me == self._me:
            return []
        self._me = me
        return [Tell(to=member, about=me) for member in self._others.values()]

    def _remember_gone(self, member: Member) -> None:
        self._gone[member.identity] = None
        if len(self._gone) > GONE_MAX:
            del self._gone[next(iter(self._gone))]


def _share_address(one: Member, other: Member) -> bool:
    return one.control_address == other.control_address or one.flight_address == other.flight_address


def _taken(newcomer: Member, holder: Member) -> PeerRefused:
    return PeerRefused(
        f"agent_id {newcomer.agent_id} is taken by the agent at {holder.control_address}, which is alive; give the one "
        f"at {newcomer.control_address} another one (flag --agent-id, key agent.id)",
        address=newcomer.control_address,
        agent_id=newcomer.agent_id,
    )
