"""Sources pause above the high-water mark until below the low one; one may always go on."""

from __future__ import annotations

import threading

import pytest

from sabot.agent.tasks.source_gate import SourceGate
from sabot.errors import JobCancelled, LimitReached
from sabot.native._native import Ledger

WAIT_S = 20.0


def never() -> None:
    pass


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(1000, high_water=0.75, low_water=0.5)


def test_nobody_waits_below_the_high_water_mark(ledger: Ledger) -> None:
    ledger.reserve_task(750)
    gate = SourceGate(ledger)
    for task in ("a", "b"):
        gate.wait(task, check=never, timeout_s=0)


def test_one_task_goes_on_and_the_others_are_refused_by_name_at_the_deadline(ledger: Ledger) -> None:
    ledger.reserve_task(800)
    gate = SourceGate(ledger)
    gate.wait("a", check=never, timeout_s=0)
    gate.wait("a", check=never, timeout_s=0)
    with pytest.raises(LimitReached, match=r"800 of 1,000 .* raise memory\.bytes_max"):
        gate.wait("b", check=never, timeout_s=0)
    gate.leave("a")
    gate.wait("b", check=never, timeout_s=0)


def test_the_one_that_may_go_on_waits_while_somebody_frees_memory(ledger: Ledger) -> None:
    ledger.reserve_task(800)
    ledger.freeing = True
    gate = SourceGate(ledger)
    with pytest.raises(LimitReached, match="800 of 1,000"):
        gate.wait("a", check=never, timeout_s=0)
    ledger.freeing = False
    gate.wait("a", check=never, timeout_s=0)
    ledger.freeing = True
    ledger.unreserve_task(50)
    gate.wait("a", check=never, timeout_s=0)  # below the high mark it need not wait for the low one


def test_source_goes_on_when_memory_is_below_the_low_water_mark(ledger: Ledger) -> None:
    ledger.reserve_task(800)
    gate = SourceGate(ledger)
    gate.wait("a", check=never, timeout_s=0)
    looked = threading.Event()
    waiting = threading.Thread(target=gate.wait, args=("b",), kwargs={"check": looked.set, "timeout_s": WAIT_S})
    waiting.start()
    assert looked.wait(WAIT_S)
    ledger.unreserve_task(100)
    looked.clear()
    assert looked.wait(WAIT_S), "700 of 1000 is below the high mark, not the low one"
    ledger.unreserve_task(300)
    waiting.join(WAIT_S)
    assert not waiting.is_alive()


def test_cancelled_task_stops_waiting(ledger: Ledger) -> None:
    ledger.reserve_task(800)
    gate = SourceGate(ledger)
    gate.wait("a", check=never, timeout_s=0)

    def cancelled() -> None:
        raise JobCancelled("it was cancelled")

    with pytest.raises(JobCancelled):
        gate.wait("b", check=cancelled, timeout_s=WAIT_S)
