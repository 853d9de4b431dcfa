"""What a coordinator that takes a job over must know is seen to be needed."""

from __future__ import annotations

from typing import Any

import pytest

from sabot.agent.coordination.coordinator import Coordinator
from sabot.agent.coordination.job_journal import KeptJournal, WrittenJournal
from sabot.agent.coordination.takeover import Identity

from .faults import Kind, Odds
from .gathering import Gathering
from .readers import Attempt, Readers
from .runs import MUCH, at_coordinator, caught, run

DIES_AS_A_STAGE_BEGINS = [at_coordinator(Kind.BREAK, "committed", 3), at_coordinator(Kind.CRASH, "committed", 4)]


def test_stage_that_starts_before_all_have_the_journal_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_gates(journal: WrittenJournal, agents: object) -> None:
        for stage in journal._stages:
            stage.gate = None

    run(range(60), faults=DIES_AS_A_STAGE_BEGINS, odds=Odds(), bytes_max=MUCH)
    monkeypatch.setattr(WrittenJournal, "open_gates", open_gates)
    violation = caught(faults=DIES_AS_A_STAGE_BEGINS, odds=Odds(), bytes_max=MUCH)
    assert "knows nothing of" in str(violation)


def test_without_the_journal_s_barrier_work_is_lost_and_never_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers that start before all have the journal cost more work where the coordinator is lost, and no row, for

    - a journal is one log: the commit of a reader stands in it after those of all that it has read, and after the state
      in which its stage was cut. Whatever part of it a successor finds is a state that the job was in;
    - what the successor does not know of is done again under other numbers: attempts are numbered by coordinator, so
      that rows of an unknown one lie with their owner and are on no reader's list;
    - a reader that was given unknown attempts ends with its coordinator: agents cancel it when they are taken over, and
      refuse the old epoch; one that is not reached is given up; and the client hears its latest coordinator only.
    So what the barrier keeps is what was done: whoever is left of the agents knows it.
    """
    right, unknown = Readers.unknown_to, []

    def unknown_to(readers: Readers, coordinator: Coordinator, keepers: frozenset[Identity]) -> set[Attempt]:
        unknown.extend(right(readers, coordinator, keepers))
        return set()

    monkeypatch.setattr(WrittenJournal, "is_kept_by_all", lambda journal, agents, mark: True)
    monkeypatch.setattr(Readers, "unknown_to", unknown_to)
    for odds in (Odds(), Odds(slow_message=0.2, doubled_call=0.2)):
        run(range(40), faults=DIES_AS_A_STAGE_BEGINS, odds=odds, bytes_max=MUCH)
    assert len(unknown) > 10, "no successor was told too little"


def test_agent_that_confirms_a_journal_and_forgets_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeptJournal, "keep", lambda kept, update: True)
    assert "knows nothing of" in str(caught(faults=DIES_AS_A_STAGE_BEGINS, odds=Odds(), bytes_max=MUCH))


def test_agent_that_was_given_up_and_is_asked_to_take_over_lets_go_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """It watched nobody any more, and kept the job for ever."""
    given: dict[str, Any] = {
        "faults": [at_coordinator(Kind.BREAK, "committed", 2)],
        "odds": Odds(lost_call=0.08),  # a reply to Prepare among them, which costs an agent its part
        "bytes_max": MUCH,
    }
    run(range(120), **given)
    right = Gathering._settle

    def settle(gathering: Gathering) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(gathering._driver.agent, "end_job", lambda job_id, keep_result: None)
            right(gathering)

    monkeypatch.setattr(Gathering, "_settle", settle)
    assert "still holds job" in str(caught(**given))
