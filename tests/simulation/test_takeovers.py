"""What a coordinator that takes a job over must know is seen to be needed."""

from __future__ import annotations

from typing import Any

import pytest

from sabot.agent.coordination.job_journal import KeptJournal, WrittenJournal

from .faults import Kind, Odds
from .gathering import Gathering
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
