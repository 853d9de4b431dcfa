"""What a coordinator that takes a job over must know is seen to be needed."""

from __future__ import annotations

import pytest

from sabot.agent.job_journal import KeptJournal, WrittenJournal

from .faults import Kind, Odds
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
