"""Clusters whose agents have little memory, or little disk: they are slower and nothing else, or say which is full."""

from __future__ import annotations

import pytest

from sabot.native._native import CreditDeskMachine, SendWindowMachine

from . import agent as agent_module
from . import memory, outbox
from .cluster import Cluster
from .faults import Fault, Kind, Odds
from .runs import LITTLE, caught, moment


def test_little_memory_slows_a_job_down_and_nothing_else() -> None:
    spilling = 0
    for seed in range(100):
        trace: list[str] = []
        ends = Cluster(seed, odds=Odds(broken_stream=0.05), faults=[], bytes_max=LITTLE, trace=trace.append).run()
        assert ends == "answer", f"seed {seed}"
        spilling += any(" spills " in line for line in trace)
    assert spilling > 50


def test_what_waits_for_a_frozen_peer_goes_to_disk_and_is_sent_when_it_thaws() -> None:
    frozen = moment(Kind.FREEZE, "chunk stored", 2, lasts_s=4.0)
    spilling = 0
    for seed in range(60):
        trace: list[str] = []
        ends = Cluster(seed, odds=Odds(), faults=[frozen], bytes_max=LITTLE, trace=trace.append).run()
        assert ends == "answer", f"seed {seed}"
        spilling += any(" to be sent" in line for line in trace)
    assert spilling > 30


class _OutboxThatForgetsTheDisk(outbox.Outbox):
    def _let_go(self, waiting: outbox.Waiting) -> None:
        if not waiting.on_disk:
            super()._let_go(waiting)


def test_chunk_that_is_given_up_and_stays_on_disk_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "Outbox", _OutboxThatForgetsTheDisk)
    frozen = moment(Kind.FREEZE, "chunk stored", 2, lasts_s=30.0)
    assert "on disk" in str(caught(faults=[frozen], odds=Odds(), bytes_max=LITTLE))


def test_two_agents_whose_outboxes_for_each_other_are_full_go_on() -> None:
    full = 0
    for seed in range(400):
        cluster = Cluster(seed, odds=Odds(), faults=[], bytes_max=LITTLE)
        if len(cluster.agents) > 2:
            continue
        held: list[set[int]] = []

        def note(line: str, cluster: Cluster = cluster, held: list[set[int]] = held) -> None:
            held.append({a.place for a in cluster.agents if a.memory.ledger.snapshot()[2] >= LITTLE[0] // 6})

        cluster.watch(note)
        assert cluster.run() == "answer", f"seed {seed}"
        full += {0, 1} in held
    assert full > 3


def test_full_disk_fails_the_job_and_leaves_nothing_behind() -> None:
    ends = [Cluster(seed, odds=Odds(), faults=[], bytes_max=(3_000, 500)).run() for seed in range(100)]
    assert set(ends) <= {"answer", "LimitReached"}
    assert ends.count("LimitReached") > 20


class _DeskThatLendsNothing(CreditDeskMachine):
    def lend_own_chunks(self) -> bool:
        return False


class _DeskThatKeepsCredit(CreditDeskMachine):
    def closed(self, stream: int) -> int:
        return max(0, super().closed(stream) - 1)


class _WindowWithoutCredit(SendWindowMachine):
    def granted(self, total: int, stream: int = 0) -> None:
        super().granted(total + 10_000, stream)


@pytest.mark.parametrize("desk", [_DeskThatLendsNothing, _DeskThatKeepsCredit])
def test_broken_credit_desk_is_seen(desk: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CreditDeskMachine", desk)
    caught(odds=Odds(), faults=[], bytes_max=LITTLE)


def test_sender_that_takes_more_than_its_credit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SendWindowMachine", _WindowWithoutCredit)
    caught(odds=Odds(), faults=[], bytes_max=LITTLE)


def test_spill_writer_that_does_not_write_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.Memory, "press", lambda self: None)
    caught(odds=Odds(), faults=[], bytes_max=LITTLE)


def test_disk_that_fails_ends_a_job_by_its_name_or_costs_it_what_lay_there() -> None:
    failing = Fault(kind=Kind.FAILING_DISK, happening="chunk stored", count=8)
    ends = [Cluster(seed, odds=Odds(), faults=[failing], bytes_max=LITTLE).run() for seed in range(60)]
    assert set(ends) <= {"answer", "LimitReached", "ShuffleIntegrityError"}
    assert min(ends.count("LimitReached"), ends.count("answer")) > 5, ends
