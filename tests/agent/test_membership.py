"""Membership: a table of events and what follows, and meshes of many agents whose messages come in any order."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.agent.cluster.membership import GONE_MAX, Command, Membership, Probe, Tell, TellLeft
from sabot.errors import PeerRefused
from sabot.wire.member import Member


def agent(agent_id: str, incarnation: int = 1, at: str | None = None) -> Member:
    host = at or agent_id
    return Member(
        agent_id=agent_id,
        incarnation=incarnation,
        control_address=f"{host}:8815",
        flight_address=f"{host}:8816",
        http_address=f"{host}:8817",
        slots=2,
    )


A, B, C = agent("a"), agent("b"), agent("c")


def with_members(*others: Member) -> Membership:
    membership = Membership(A)
    for other in others:
        membership.on_join(other, forwarded=True)
    return membership


def test_starts_alone() -> None:
    assert Membership(A).members() == [A]


def test_newcomer_is_told_to_all_others() -> None:
    membership = with_members(B)
    assert membership.on_join(C, forwarded=False) == [Tell(to=B, about=C)]
    assert membership.members() == [A, B, C]


def test_forwarded_newcomer_is_not_told_on() -> None:
    assert with_members(B).on_join(C, forwarded=True) == []


def test_newcomer_told_twice_is_told_on_once() -> None:
    membership = with_members(B)
    membership.on_join(C, forwarded=False)
    assert membership.on_join(C, forwarded=False) == []


def test_joining_oneself_changes_nothing() -> None:
    membership = with_members(B)
    assert membership.on_join(A, forwarded=False) == []
    assert membership.members() == [A, B]


def test_answer_introduces_to_those_that_were_unknown() -> None:
    membership = with_members()
    assert membership.on_answer([A, B, C]) == [Tell(to=B, about=A), Tell(to=C, about=A)]
    assert membership.members() == [A, B, C]
    assert membership.on_answer([A, B, C]) == []


def test_answer_introduces_who_joined_through_this_agent_too() -> None:
    membership = with_members(B)
    told = [Tell(to=C, about=A), Tell(to=C, about=B), Tell(to=B, about=C)]
    assert membership.on_answer([A, C]) == told


def test_answer_does_not_bring_back_who_has_left() -> None:
    membership = with_members(B)
    membership.on_leave(B)
    assert membership.on_answer([B]) == []
    assert membership.members() == [A]


def test_answer_does_not_replace_who_is_known() -> None:
    membership = with_members(B)
    assert membership.on_answer([agent("b", incarnation=2)]) == []
    assert membership.members() == [A, B]


def test_agent_back_at_its_address_replaces_the_old_one() -> None:
    membership = with_members(B, C)
    again = agent("b", incarnation=2)
    assert membership.on_join(again, forwarded=False) == [Tell(to=C, about=again)]
    assert membership.members() == [A, again, C]


def test_other_agent_at_an_address_replaces_who_was_there() -> None:
    membership = with_members(B, C)
    other = agent("d", at="b")
    assert membership.on_join(other, forwarded=False) == [Tell(to=C, about=other)]
    assert membership.members() == [A, C, other]


def test_replaced_incarnation_is_refused_for_ever() -> None:
    membership = with_members(B)
    membership.on_join(agent("b", incarnation=2), forwarded=False)
    with pytest.raises(PeerRefused, match="does not come back"):
        membership.on_join(B, forwarded=False)


def test_agent_that_left_is_refused_but_its_next_incarnation_is_not() -> None:
    membership = with_members(B)
    membership.on_leave(B)
    with pytest.raises(PeerRefused, match="start it anew"):
        membership.on_join(B, forwarded=True)
    membership.on_join(agent("b", incarnation=2), forwarded=False)
    assert membership.members() == [A, agent("b", incarnation=2)]


def test_late_goodbye_of_an_old_incarnation_leaves_the_new_one() -> None:
    membership = with_members(agent("b", incarnation=2))
    membership.on_leave(B)
    assert membership.members() == [A, agent("b", incarnation=2)]


def test_goodbye_before_the_forwarded_hello_wins() -> None:
    membership = with_members()
    membership.on_leave(B)
    with pytest.raises(PeerRefused):
        membership.on_join(B, forwarded=True)


def test_own_agent_id_is_refused_at_once() -> None:
    with pytest.raises(PeerRefused, match=r"agent_id a is taken.*--agent-id"):
        with_members().on_join(agent("a", incarnation=2, at="x"), forwarded=False)


def test_own_address_is_refused() -> None:
    with pytest.raises(PeerRefused, match="advertise_host"):
        with_members().on_join(agent("b", at="a"), forwarded=False)


def test_agent_id_of_another_address_is_probed() -> None:
    membership = with_members(B)
    other = agent("b", incarnation=2, at="x")
    probe = Probe(holder=B, newcomer=other, forwarded=False)
    assert membership.on_join(other, forwarded=False) == [probe]
    assert membership.members() == [A, B]


def test_agent_id_of_a_live_agent_is_refused() -> None:
    membership = with_members(B)
    other = agent("b", incarnation=2, at="x")
    with pytest.raises(PeerRefused, match=r"b:8815, which is alive; give the one at x:8815 another one"):
        membership.on_probed(Probe(holder=B, newcomer=other, forwarded=False), alive=True)
    assert membership.members() == [A, B]


def test_agent_id_of_a_dead_agent_is_passed_on() -> None:
    membership = with_members(B, C)
    other = agent("b", incarnation=2, at="x")
    probe = Probe(holder=B, newcomer=other, forwarded=False)
    assert membership.on_probed(probe, alive=False) == [Tell(to=C, about=other)]
    assert membership.members() == [A, other, C]


def test_probe_of_a_holder_that_went_meanwhile_counts_for_nothing() -> None:
    membership = with_members(B)
    other = agent("b", incarnation=3, at="x")
    probe = Probe(holder=B, newcomer=other, forwarded=False)
    membership.on_leave(B)
    membership.on_probed(probe, alive=True)
    assert membership.members() == [A, other]


def test_probe_of_a_holder_that_was_replaced_meanwhile_is_made_anew() -> None:
    membership = with_members(B)
    second, third = agent("b", incarnation=2), agent("b", incarnation=3, at="x")
    membership.on_join(second, forwarded=False)
    again = membership.on_probed(Probe(holder=B, newcomer=third, forwarded=False), alive=False)
    assert again == [Probe(holder=second, newcomer=third, forwarded=False)]


def test_change_of_slots_is_told_to_all_and_only_once() -> None:
    membership = with_members(B, C)
    me = replace(A, slots=5)
    assert membership.on_slots(5) == [Tell(to=B, about=me), Tell(to=C, about=me)]
    assert membership.me == me
    assert membership.on_slots(5) == []


def test_change_of_a_member_is_taken() -> None:
    membership = with_members(B)
    membership.on_join(replace(B, slots=9), forwarded=True)
    assert membership.members() == [A, replace(B, slots=9)]


def test_draining_never_goes_back() -> None:
    membership = with_members(replace(B, draining=True))
    membership.on_join(B, forwarded=True)
    assert membership.members() == [A, replace(B, draining=True)]


def test_drain_and_stop_are_told_to_all() -> None:
    membership = with_members(B)
    draining = replace(A, draining=True)
    assert membership.on_drain() == [Tell(to=B, about=draining)]
    assert membership.on_stop() == [TellLeft(to=B, who=draining)]


def test_gone_identities_are_limited_and_the_oldest_is_forgotten() -> None:
    membership = with_members()
    for incarnation in range(1, GONE_MAX + 2):
        membership.on_leave(agent("b", incarnation=incarnation))
    membership.on_join(agent("b", incarnation=1), forwarded=True)
    with pytest.raises(PeerRefused):
        membership.on_join(agent("b", incarnation=2), forwarded=True)


class Mesh:
    """Agents with a wire between them that delivers in an order of its own; every one alive answers probes."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.agents: dict[tuple[str, int], Membership] = {}
        self.wire: list[tuple[tuple[str, int], Command]] = []
        self.refused: set[tuple[str, int]] = set()

    def start(self, me: Member, *, through: Member | None) -> None:
        self.agents[me.identity] = Membership(me)
        if through is not None:
            self.wire.append((me.identity, Tell(to=through, about=me)))
            self.first = {**getattr(self, "first", {}), me.identity: through.identity}

    def step(self) -> None:
        sender, command = self.wire.pop(self.rng.randrange(len(self.wire)))
        if isinstance(command, Probe) or sender not in self.agents:
            return
        receiver = self.agents.get(command.to.identity)
        if receiver is None:
            return
        if isinstance(command, TellLeft):
            receiver.on_leave(command.who)
            return
        joins = self.first.get(sender) == command.to.identity and command.about.identity == sender
        try:
            self.send(command.to.identity, self.probed(receiver, receiver.on_join(command.about, forwarded=not joins)))
        except PeerRefused:
            self.refused.add(command.about.identity)
            return
        if command.about.identity == sender:
            self.send(sender, list(self.agents[sender].on_answer(receiver.members())))

    def probed(self, receiver: Membership, commands: list[Command]) -> list[Command]:
        rest = []
        for command in commands:
            if isinstance(command, Probe):
                alive = command.holder.identity in self.agents
                rest += self.probed(receiver, receiver.on_probed(command, alive=alive))
            else:
                rest.append(command)
        return rest

    def send(self, sender: tuple[str, int], commands: list[Command]) -> None:
        self.wire += [(sender, command) for command in commands]

    def settle(self) -> None:
        for _ in range(10_000):
            if not self.wire:
                return
            self.step()
        raise AssertionError("the agents never stop talking")


@given(seed=st.integers(0, 2**32), count=st.integers(2, 7), steps=st.lists(st.integers(0, 6), max_size=8))
def test_all_agents_meet_whatever_the_order_of_their_messages(seed: int, count: int, steps: list[int]) -> None:
    rng = random.Random(seed)
    mesh = Mesh(rng)
    started = [agent("n0")]
    mesh.start(started[0], through=None)
    for number in range(1, count):
        newcomer = agent(f"n{number}")
        mesh.start(newcomer, through=rng.choice(started))
        started.append(newcomer)
        for _ in range(min(steps[number] if number < len(steps) else 0, len(mesh.wire))):
            mesh.step()
    mesh.settle()
    assert [membership.members() for membership in mesh.agents.values()] == [started] * count


@given(seed=st.integers(0, 2**32), count=st.integers(3, 6), leaver=st.integers(1, 5))
def test_who_leaves_is_gone_everywhere_however_late_its_hello_comes(seed: int, count: int, leaver: int) -> None:
    mesh = Mesh(random.Random(seed))
    everyone = [agent(f"n{number}") for number in range(count)]
    mesh.start(everyone[0], through=None)
    for newcomer in everyone[1:]:
        mesh.start(newcomer, through=everyone[0])
    mesh.settle()
    gone = everyone[leaver % count]
    late = [(everyone[0].identity, Tell(to=other, about=gone)) for other in everyone if other is not gone]
    mesh.send(gone.identity, list(mesh.agents[gone.identity].on_stop()))
    mesh.wire += late
    mesh.settle()
    del mesh.agents[gone.identity]
    left = [other for other in everyone if other is not gone]
    assert [membership.members() for membership in mesh.agents.values()] == [left] * len(left)


@given(seed=st.integers(0, 2**32))
def test_two_that_claim_one_name_at_once_never_both_stay_unnoticed(seed: int) -> None:
    mesh = Mesh(random.Random(seed))
    first, second = agent("x", 1, at="x1"), agent("x", 2, at="x2")
    mesh.start(A, through=None)
    mesh.start(B, through=A)
    mesh.settle()
    mesh.start(first, through=A)
    mesh.start(second, through=B)
    mesh.settle()
    assert mesh.refused & {first.identity, second.identity}
