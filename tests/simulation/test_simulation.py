"""Whole clusters under faults keep every invariant, and the simulator sees each machine that is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from sabot.agent import job_events as ev
from sabot.agent.coordinator import Coordinator
from sabot.agent.receipts import Receipts
from sabot.agent.stage_run import StageRun
from sabot.native._native import SendWindowMachine

from . import agent as agent_module
from . import outbox
from .checks import Violation
from .cluster import Cluster, Guards
from .faults import Fault, Kind, Odds

SEEDS = 2000
SEEDS_TO_CATCH = 400  # within so many a broken machine must be seen


def run(seeds: Iterable[int], **given: Any) -> None:
    for seed in seeds:
        try:
            Cluster(seed, **given).run()
        except Violation as violation:
            message = f"{violation}\nreplay it: python -m tests.simulation --seed {seed} -v"
            raise Violation(message) from violation


def test_every_seed_keeps_the_invariants() -> None:
    run(range(SEEDS))


def test_seed_is_a_whole_run() -> None:
    traces: list[list[str]] = [[], []]
    for trace in traces:
        Cluster(7, trace=trace.append).run()
    assert len(traces[0]) > 100
    assert traces[0] == traces[1]


MOMENTS = {
    "owner dies after a commit": Fault(kind=Kind.CRASH, happening="committed", count=1),
    "owner dies silently after a commit": Fault(kind=Kind.CRASH, happening="committed", count=2, silent=True),
    "owner thaws with its old incarnation": Fault(kind=Kind.FREEZE, happening="chunk stored", count=2, lasts_s=30.0),
    "owner is replaced after its acknowledgement": Fault(
        kind=Kind.CRASH, happening="chunk stored", count=1, later_s=0.004, lasts_s=0.01
    ),
    "sender dies between its chunks": Fault(kind=Kind.CRASH, happening="chunk acknowledged", count=1),
    "reader dies": Fault(kind=Kind.CRASH, happening="partition read", count=1),
}


@pytest.mark.parametrize("fault", MOMENTS.values(), ids=MOMENTS.keys())
def test_moment_that_matters_keeps_the_invariants(fault: Fault) -> None:
    run(range(60), faults=[fault], odds=Odds())
    run(range(60), faults=[fault], odds=Odds(slow_message=0.1, broken_stream=0.1, doubled_call=0.2))


@pytest.mark.parametrize(
    "odds",
    [
        Odds(),
        Odds(slow_message=0.2),
        Odds(doubled_call=0.5),
        Odds(broken_stream=0.15),
        Odds(slow_message=0.05, doubled_call=0.2, broken_stream=0.1),
    ],
    ids=str,
)
def test_messages_late_doubled_or_sent_again_do_not_cost_the_job(odds: Odds) -> None:
    for seed in range(60):
        cluster = Cluster(seed, odds=odds, faults=[])
        assert cluster.run() == "answer", f"seed {seed}"


def caught(**given: Any) -> Violation:
    with pytest.raises(Violation) as raised:
        run(range(SEEDS_TO_CATCH), **given)
    return raised.value


@pytest.mark.parametrize(
    ("guards", "odds"),
    [
        (Guards(dedupe=False), None),
        (Guards(check_manifests=False), Odds(dropped_chunk=0.05)),
        (Guards(audit_readers=False), Odds(rotten_chunk=0.05)),
        (Guards(verify_checksums=False, audit_readers=False), Odds(corrupt_chunk=0.05)),
    ],
    ids=["dedupe", "manifests", "audit", "checksums"],
)
def test_guard_that_is_off_is_seen(guards: Guards, odds: Odds | None) -> None:
    run(range(60), odds=odds)
    caught(guards=guards, odds=odds)


class _ForgetfulWindow(SendWindowMachine):
    def rewind(self, stream: int = 0) -> None:
        """Does not send again what a broken stream may have lost."""


class _WideWindow(SendWindowMachine):
    def __init__(self, peer: str, chunks: int, *, streams: int = 1) -> None:
        super().__init__(peer, chunks + 1, streams=streams)


@pytest.mark.parametrize("window", [_ForgetfulWindow, _WideWindow])
def test_broken_send_window_is_seen(window: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SendWindowMachine", window)
    caught(odds=Odds(broken_stream=0.1), faults=[])


Handle = Callable[[Coordinator, ev.Event], list[ev.Command]]


def deaf_to(kind: type) -> Callable[[Handle], Handle]:
    """A coordinator to which an event means nothing."""
    return lambda handle: lambda self, event: [] if isinstance(event, kind) else handle(self, event)


def tells_only_one_of_the_end(handle: Handle) -> Handle:
    def broken(self: Coordinator, event: ev.Event) -> list[ev.Command]:
        return [c for c in handle(self, event) if not (isinstance(c, ev.EndJob) and c.agent > 0)]

    return broken


def starts_before_all_are_prepared(handle: Handle) -> Handle:
    def broken(self: Coordinator, event: ev.Event) -> list[ev.Command]:
        if isinstance(event, ev.Prepared):
            self._awaited.clear()
        return handle(self, event)

    return broken


def counts_a_task_as_running_for_ever(handle: Handle) -> Handle:
    def broken(self: Coordinator, event: ev.Event) -> list[ev.Command]:
        if isinstance(event, ev.TaskSucceeded):
            self._running[event.agent] += 1
        return handle(self, event)

    return broken


@pytest.mark.parametrize(
    "breaking",
    [
        deaf_to(ev.AgentLost),
        deaf_to(ev.TaskFailed),
        tells_only_one_of_the_end,
        starts_before_all_are_prepared,
        counts_a_task_as_running_for_ever,
    ],
    ids=["deaf to AgentLost", "deaf to TaskFailed", "EndJob", "Prepared", "running"],
)
def test_broken_coordinator_is_seen(breaking: Callable[[Handle], Handle], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coordinator, "handle", breaking(Coordinator.handle))
    caught()


def test_stage_that_is_done_too_early_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        StageRun, "done", property(lambda run: run.started and len(run._replies) >= len(run.splits) - 1)
    )
    assert "not committed" in str(caught())


def test_answer_that_counts_twice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StageRun, "is_running", lambda run, task, agent: True)
    caught(odds=Odds(doubled_call=0.3), faults=[])


def test_partition_read_by_another_than_its_owner_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Coordinator._agent_of
    monkeypatch.setattr(
        Coordinator,
        "_agent_of",
        lambda self, split: None if (found := right(self, split)) is None else (found + 1) % len(self._agents),
    )
    caught()


def test_receipt_that_nobody_folds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Receipts, "fold", lambda *given: None)
    assert "receipt" in str(caught())


def test_agent_that_forgets_to_end_a_job_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module.Agent, "end_job", lambda self, job_id, keep_result: None)
    assert "still holds job" in str(caught())
