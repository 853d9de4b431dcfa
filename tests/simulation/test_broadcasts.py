"""Jobs with a stage of which every agent gets a copy, under faults, and what keeps their copies right."""

from __future__ import annotations

from collections import Counter

import pytest

from sabot.agent.coordination.job_stages import JobStages
from sabot.agent.coordination.receipts import Receipts

from .cluster import Cluster
from .faults import Fault, Kind, Odds
from .runs import LITTLE, MUCH, at_coordinator, caught, moment, run

SEEDS_A_MOMENT = 12

MOMENTS = {
    "owner of a copy dies": moment(Kind.CRASH, "manifest confirmed", 3),
    "owner of a copy dies silently when it has read it": moment(Kind.CRASH, "partition read", 2, silent=True),
    "owner of a copy thaws when it has been given up": moment(Kind.FREEZE, "chunk stored", 2, lasts_s=20.0),
    "coordinator dies when copies are read": at_coordinator(Kind.CRASH, "partition read", 2),
    "agent comes when copies have been sent": Fault(kind=Kind.JOIN, happening="committed", count=2),
    "agent leaves with its copy": moment(Kind.DRAIN, "committed", 2),
}


@pytest.mark.parametrize("fault", MOMENTS.values(), ids=MOMENTS.keys())
def test_copies_are_whole_whatever_happens_to_who_has_them(fault: Fault) -> None:
    for odds in (Odds(), Odds(slow_message=0.1, broken_stream=0.1, doubled_call=0.2)):
        clusters = [
            Cluster(seed, faults=[fault], odds=odds, bytes_max=MUCH, copies=True) for seed in range(SEEDS_A_MOMENT)
        ]
        ends = Counter(cluster.run() for cluster in clusters)
        assert ends["answer"] > SEEDS_A_MOMENT // 2, ends


def test_little_memory_slows_copies_down_and_nothing_else() -> None:
    run(range(40), odds=Odds(broken_stream=0.05), faults=[], bytes_max=LITTLE, copies=True)


def test_copy_that_is_lost_and_not_sent_again_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobStages, "_copies_in_use", lambda stages, stage_id: frozenset())
    caught(faults=[MOMENTS["owner of a copy dies"]], odds=Odds(rotten_chunk=0.05), bytes_max=MUCH, copies=True)


def test_receipt_of_copies_that_nobody_folds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Receipts, "_fold_copied", lambda *given: None)
    assert "receipt" in str(caught(faults=[], odds=Odds(), bytes_max=MUCH, copies=True))
