"""Joins whose hot partitions are cut into shares, each of which another task reads: under faults every row of the cut
side is read by one of them.
"""

from __future__ import annotations

from collections import Counter

import pytest

from sabot.agent.coordination.receipts import _Reading
from sabot.agent.coordination.running import Running
from sabot.dataflow.stage import Share

from .cluster import Cluster
from .faults import Fault, Kind, Odds, Pace
from .readers import Readers
from .runs import LITTLE, MUCH, at_coordinator, caught, moment, run

SEEDS_A_MOMENT = 14

MOMENTS = {
    "owner dies when a share has been read": moment(Kind.CRASH, "partition read", 3),
    "owner dies silently while shares are pulled": moment(Kind.CRASH, "partition read", 2, silent=True, later_s=0.001),
    "owner thaws when it has been given up": moment(Kind.FREEZE, "partition read", 2, lasts_s=20.0),
    "coordinator dies among the shares": at_coordinator(Kind.CRASH, "partition read", 4),
    "agent comes when a partition is about to be cut": Fault(kind=Kind.JOIN, happening="committed", count=2),
    "agent leaves with the partition": moment(Kind.DRAIN, "partition read", 1),
}


def shares_in(trace: list[str]) -> int:
    """How many attempts were given one of several shares."""
    return sum(" share " in line and " of 1 " not in line for line in trace)


@pytest.mark.parametrize("fault", MOMENTS.values(), ids=MOMENTS.keys())
def test_shares_are_a_partition_together_whatever_happens_to_who_reads_them(fault: Fault) -> None:
    ends: Counter[str] = Counter()
    shared = 0
    for odds in (Odds(), Odds(slow_message=0.1, broken_stream=0.1, doubled_call=0.2)):
        for seed in range(SEEDS_A_MOMENT):
            trace: list[str] = []
            ends[Cluster(seed, faults=[fault], odds=odds, bytes_max=MUCH, hot=True, trace=trace.append).run()] += 1
            shared += shares_in(trace) > 0
    assert ends["answer"] > SEEDS_A_MOMENT, ends
    assert shared > SEEDS_A_MOMENT // 2


def test_little_memory_slows_shares_down_and_nothing_else() -> None:
    run(range(20), odds=Odds(broken_stream=0.05), faults=[], bytes_max=LITTLE, hot=True)


def test_share_that_is_read_on_while_its_partition_is_sent_again_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row rots when one of the shares has been read and before another one is."""
    rot = Fault(kind=Kind.ROT, happening="partition read", count=2)
    run(range(40), faults=[rot], odds=Odds(slow_message=0.1), bytes_max=MUCH, hot=True)
    monkeypatch.setattr(Running, "reads", lambda running, partitions: False)
    monkeypatch.setattr(Readers, "reads", lambda *given: set())  # which would see it first
    assert "ShuffleIntegrityError" in str(caught(faults=[rot], odds=Odds(slow_message=0.1), bytes_max=MUCH, hot=True))


def test_readers_of_two_attempts_of_one_task_at_the_same_time_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account of the job would see it, too, but only at the end of the readers."""
    monkeypatch.setattr(Running, "reads", lambda running, partitions: False)
    monkeypatch.setattr(_Reading, "agrees", lambda *given: True)
    rot = Fault(kind=Kind.ROT, happening="partition read", count=2)
    pace = Pace(work_s=0.3, factors=(8.0, 8.0))
    violation = caught(faults=[rot], odds=Odds(), bytes_max=MUCH, hot=True, pace=pace)
    assert "were given others" in str(violation)


def test_shares_that_overlap_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Share, "of_side", lambda share, side: (0, 1))
    assert "were sent" in str(caught(faults=[], odds=Odds(), bytes_max=MUCH, hot=True))


def test_shares_that_overlap_are_seen_by_the_simulator_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Share, "of_side", lambda share, side: (0, 1))
    monkeypatch.setattr(_Reading, "agrees", lambda *given: True)
    assert "was read from attempts" in str(caught(faults=[], odds=Odds(), bytes_max=MUCH, hot=True))
