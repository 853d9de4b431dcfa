"""Jobs with a stage of which every agent gets a copy, under faults, and what keeps their copies right."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from sabot.agent.coordination.job_stages import Ended, JobStages
from sabot.agent.coordination.receipts import Receipts
from sabot.agent.coordination.stage_run import StageRun

from .cluster import Cluster
from .faults import Fault, Kind, Odds, Pace
from .readers import Readers
from .runs import LITTLE, MUCH, at_coordinator, caught, moment, run

SEEDS_A_MOMENT = 12
LONG = Pace(work_s=0.1)

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


ROT = Fault(kind=Kind.ROT, happening="partition read", count=1)
ALL_FOUNDERS_LEAVE = [
    *(Fault(kind=Kind.JOIN, happening="prepared", count=count) for count in (1, 2)),
    *(Fault(kind=Kind.DRAIN, happening="task begun", count=1, place=place) for place in (0, 1)),
]
"""So that two newcomers have one copy together; one of them dies when the other has read it."""
OWNER_OF_THE_COPY_DIES = [
    Fault(kind=Kind.CRASH, happening=happening, count=count, place=2)
    for happening, count in (("partition read", 7), ("chunk acknowledged", 13), ("task begun", 29))
]


def test_copy_that_rots_when_one_task_has_read_it_is_sent_again_and_costs_no_job() -> None:
    run(range(40), faults=[ROT], odds=Odds(slow_message=0.1), bytes_max=MUCH, copies=True)


@pytest.mark.parametrize("dies", OWNER_OF_THE_COPY_DIES, ids=lambda fault: fault.happening)
def test_copy_that_only_newcomers_have_is_lost_with_one_of_them_and_costs_no_job(dies: Fault) -> None:
    faults = [*ALL_FOUNDERS_LEAVE, dies]
    for seed in range(12):
        cluster = Cluster(seed, agents=2, faults=faults, odds=Odds(), bytes_max=MUCH, copies=True, pace=LONG)
        assert cluster.run() in {"answer", "PeerLost"}  # of an only holder of a piece of a table


@pytest.mark.parametrize("lost_by", ["spoil_input", "give_up"])
def test_reader_of_a_copy_that_goes_on_while_it_is_sent_again_is_seen(
    lost_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held to an account that is not whole."""
    right = JobStages._end_readers_of_copies

    def end_readers(stages: JobStages, run: StageRun, copies: frozenset[int]) -> Ended:
        caller = sys._getframe(1).f_code.co_name
        return [] if caller == lost_by else right(stages, run, copies)

    monkeypatch.setattr(JobStages, "_end_readers_of_copies", end_readers)
    monkeypatch.setattr(Readers, "reads", lambda *given: set())  # which would see it first
    if lost_by == "spoil_input":
        violation = caught(faults=[ROT], odds=Odds(slow_message=0.1), bytes_max=MUCH, copies=True)
    else:
        faults = [*ALL_FOUNDERS_LEAVE, OWNER_OF_THE_COPY_DIES[0]]
        violation = caught(agents=2, faults=faults, odds=Odds(), bytes_max=MUCH, copies=True, pace=LONG)
    assert "ShuffleIntegrityError" in str(violation)


def test_copy_that_is_lost_and_not_sent_again_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobStages, "_copies_in_use", lambda stages, stage_id: frozenset())
    caught(faults=[MOMENTS["owner of a copy dies"]], odds=Odds(rotten_chunk=0.05), bytes_max=MUCH, copies=True)


def test_receipt_of_copies_that_nobody_folds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Receipts, "_fold_copied", lambda *given: None)
    assert "receipt" in str(caught(faults=[], odds=Odds(), bytes_max=MUCH, copies=True))
