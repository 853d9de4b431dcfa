"""Whole clusters under faults keep every invariant, and the simulator sees each machine that is broken on purpose."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination import job_stages
from sabot.agent.coordination.coordinator import Coordinator
from sabot.agent.coordination.job_journal import WrittenJournal
from sabot.agent.coordination.job_stages import JobStages
from sabot.agent.coordination.owner_table import OwnerTable
from sabot.agent.coordination.receipts import Receipts
from sabot.agent.coordination.slow_tasks import SlowRule
from sabot.agent.coordination.stage_run import StageRun
from sabot.agent.jobs.job_fence import JobFence
from sabot.native._native import SendWindowMachine

from . import agent as agent_module
from . import outbox
from .cluster import SLOW, Cluster, Guards
from .faults import Fault, Kind, Odds, Pace
from .held_jobs import HeldJobs
from .readers import Readers
from .runs import LITTLE, MUCH, at_coordinator, caught, moment, run

ROOT = Path(__file__).parents[2]
SEEDS = 2000
SEEDS_A_TEST = 250
SEEDS_A_MOMENT = 30


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_A_TEST))
def test_every_seed_keeps_the_invariants(first: int) -> None:
    """By the command that does it by hand, half of them in each of two processes: nothing in it looks at a clock."""
    half = SEEDS_A_TEST // 2
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(half), "--first"]
    started = [
        subprocess.Popen([*command, str(at)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for at in (first, first + half)
    ]
    told = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(told)
    assert all(f"{half} seeds in " in text for text in told)


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(102380, id="second attempt on an agent whose copy was being sent again"),
        pytest.param(103317, id="chunk refused just below the high-water mark, for which nobody made room"),
    ],
)
def test_seed_that_broke_an_invariant_once(seed: int) -> None:
    run([seed])


def test_seed_is_a_whole_run() -> None:
    traces: list[list[str]] = [[], []]
    for trace in traces:
        Cluster(11, trace=trace.append).run()
    assert len(traces[0]) > 100
    assert traces[0] == traces[1]


MOMENTS = {
    "owner dies after a commit": moment(Kind.CRASH, "committed", 1),
    "owner dies silently after a commit": moment(Kind.CRASH, "committed", 2, silent=True),
    "owner thaws with its old incarnation": moment(Kind.FREEZE, "chunk stored", 2, lasts_s=30.0),
    "owner is replaced after its acknowledgement": moment(Kind.CRASH, "chunk stored", 1, later_s=0.004, lasts_s=0.01),
    "sender dies between its chunks": moment(Kind.CRASH, "chunk acknowledged", 1),
    "reader dies": moment(Kind.CRASH, "partition read", 1),
}


COORDINATOR_MOMENTS = {
    "dies before anything is recorded": at_coordinator(Kind.CRASH, "committed", 1),
    "dies when some have recorded a commit": at_coordinator(Kind.CRASH, "recorded", 2),
    "dies silently when a stage begins": at_coordinator(Kind.CRASH, "recorded", 3, silent=True),
    "dies while partitions are read": at_coordinator(Kind.CRASH, "partition read", 2),
    "thaws when it has been replaced": at_coordinator(Kind.FREEZE, "committed", 2, lasts_s=20.0),
    "loses its client": at_coordinator(Kind.BREAK, "committed", 2),
    "comes back at its address": at_coordinator(Kind.CRASH, "partition read", 1, lasts_s=2.0),
    "has just taken over when it dies": at_coordinator(Kind.CRASH, "taken over", 1),
}


@pytest.mark.parametrize("fault", COORDINATOR_MOMENTS.values(), ids=COORDINATOR_MOMENTS.keys())
def test_coordinator_struck_at_any_moment_costs_its_work_and_not_the_job(fault: Fault) -> None:
    first = at_coordinator(Kind.BREAK, "committed", 1)  # so that there is a takeover to die in
    faults = [first, fault] if fault.happening == "taken over" else [fault]
    for odds in (Odds(), Odds(slow_message=0.1, broken_stream=0.1, doubled_call=0.2)):
        clusters = [Cluster(seed, faults=faults, odds=odds, bytes_max=MUCH) for seed in range(SEEDS_A_MOMENT)]
        ends = [cluster.run() for cluster in clusters]
        taken_over = [c for c, end in zip(clusters, ends, strict=True) if end == "answer" and c.clients[0].takeovers]
        assert ends.count("answer") > SEEDS_A_MOMENT // 2, Counter(ends)
        assert len(taken_over) > SEEDS_A_MOMENT // 3, "nobody has taken a job over"


@pytest.mark.parametrize("fault", MOMENTS.values(), ids=MOMENTS.keys())
def test_moment_that_matters_keeps_the_invariants(fault: Fault) -> None:
    for odds in (Odds(), Odds(slow_message=0.1, broken_stream=0.1, doubled_call=0.2)):
        clusters = [Cluster(seed, faults=[fault], odds=odds) for seed in range(SEEDS_A_MOMENT)]
        ends = [cluster.run() for cluster in clusters]
        redone = [c for c, end in zip(clusters, ends, strict=True) if end == "answer" and c.clients[0].agents_lost]
        assert ends.count("answer") > SEEDS_A_MOMENT // 2
        assert len(redone) > SEEDS_A_MOMENT // 6, "the fault cost nobody anything"


def test_second_attempts_keep_slow_tasks_from_holding_up_a_job_and_change_nothing_else() -> None:
    def time_s(slow: SlowRule) -> tuple[float, int]:
        clusters = [
            Cluster(seed, faults=[], odds=Odds(slow_task=0.1), slow=slow, bytes_max=MUCH, pace=Pace())
            for seed in range(60)
        ]
        assert [cluster.run() for cluster in clusters] == ["answer"] * len(clusters)
        clients = [cluster.clients[0] for cluster in clusters]
        return sum(client.ended_s or 0 for client in clients), sum(client.second_attempts for client in clients)

    waiting_s, none = time_s(SlowRule())
    helped_s, some = time_s(SLOW)
    assert none == 0 and some > 30
    assert helped_s < 0.7 * waiting_s


def test_second_attempts_take_over_what_a_slow_agent_would_take_long_for() -> None:
    """Five times as slow as the others, in everything, all the time."""

    def time_s(slow: SlowRule) -> tuple[float, int]:
        clusters = [
            Cluster(seed, faults=[], odds=Odds(), slow=slow, bytes_max=MUCH, pace=Pace(work_s=1.0, factors=(5.0,)))
            for seed in range(30)
        ]
        assert [cluster.run() for cluster in clusters] == ["answer"] * len(clusters)
        clients = [cluster.clients[0] for cluster in clusters]
        return sum(client.ended_s or 0 for client in clients), sum(client.second_attempts for client in clients)

    waiting_s, none = time_s(SlowRule())
    helped_s, some = time_s(SLOW)
    assert none == 0 and some > 15, (none, some)
    assert helped_s < 0.9 * waiting_s, (helped_s, waiting_s)


def test_agents_that_join_take_part_and_change_nothing_else() -> None:
    joins = [Fault(kind=Kind.JOIN, happening="task begun", count=count) for count in (1, 2)]
    clusters = [Cluster(seed, faults=joins, odds=Odds(), bytes_max=MUCH) for seed in range(60)]
    assert [cluster.run() for cluster in clusters] == ["answer"] * len(clusters)
    assert sum(cluster.clients[0].joined for cluster in clusters) > 60


def test_agents_that_are_started_anew_at_their_address_take_part_again() -> None:
    crash = Fault(kind=Kind.CRASH, happening="task begun", count=2, lasts_s=0.05)
    clusters = [Cluster(seed, faults=[crash], odds=Odds(), bytes_max=MUCH) for seed in range(40)]
    assert {cluster.run() for cluster in clusters} <= {"answer", "PeerLost"}  # of an only holder of a piece of a table
    assert sum(cluster.clients[0].joined for cluster in clusters) > 10


def test_agents_that_drain_leave_in_the_middle_of_a_job_and_cost_nothing() -> None:
    left = 0
    for seed in range(60):
        drain = Fault(kind=Kind.DRAIN, happening=("task begun", "committed", "chunk stored")[seed % 3], count=2)
        said: list[str] = []
        cluster = Cluster(seed, faults=[drain], odds=Odds(), bytes_max=MUCH, trace=said.append)
        assert cluster.run() == "answer"
        assert cluster.clients[0].tasks_redone == 0 and cluster.clients[0].epoch == 0
        commands = [line for line in said if " command " in line]
        ends = next(place for place, line in enumerate(commands) if " EndJob " in line)
        left += any(" StartTask " in line for line in commands[ends : ends + 3])
    assert left > 20


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
        cluster = Cluster(seed, odds=odds, faults=[], bytes_max=LITTLE)
        assert cluster.run() == "answer", f"seed {seed}"


@pytest.mark.parametrize(
    ("guards", "odds"),
    [
        (Guards(dedupe=False), None),
        (Guards(check_epochs=False), None),
        (Guards(check_manifests=False), Odds(forgotten_chunk=0.05)),
        (Guards(audit_readers=False), Odds(rotten_chunk=0.05)),
        (Guards(verify_checksums=False, audit_readers=False), Odds(corrupt_chunk=0.05)),
    ],
    ids=["dedupe", "epochs", "manifests", "audit", "checksums"],
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
            self._dealer._running[event.agent] += 1
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
    monkeypatch.setattr(StageRun, "done", property(lambda run: run.started and len(run.todo) <= 1))
    caught()


def test_attempt_that_was_given_up_and_counts_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StageRun, "running", lambda run, task, attempt: run._tasks[task].running)
    caught()


def test_partition_read_by_another_than_its_owner_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = JobStages._agent_of
    monkeypatch.setattr(
        JobStages,
        "_agent_of",
        lambda self, split: None if (found := right(self, split)) is None else (found + 1) % len(self._agents),
    )
    caught()


def test_lost_partition_that_nobody_takes_over_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = OwnerTable.without
    monkeypatch.setattr(
        OwnerTable, "without", lambda table, agent: dataclasses.replace(right(table, agent), owners=table.owners)
    )
    caught()


def test_lost_rows_that_nobody_sends_again_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StageRun, "lose", lambda run, partitions: None)
    caught()


def test_reader_of_what_was_lost_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StageRun, "attempts_for", lambda run, partition: (0,) * len(run.splits))
    caught()


def test_replay_of_a_stage_that_places_its_rows_otherwise_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_stages, "repeatable_stages", lambda plan: {stage.stage_id for stage in plan.stages})
    caught()


def test_receipt_that_counts_a_replay_twice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Receipts, "lose", lambda *given: None)
    caught()


def test_receipt_that_nobody_folds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Receipts, "fold", lambda *given: None)
    assert "receipt" in str(caught())


def test_earlier_coordinator_whose_commands_are_taken_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobFence, "admit", lambda self, job_id, epoch: None)
    caught(faults=[at_coordinator(Kind.BREAK, "task begun", 2)], odds=Odds(slow_message=0.1))


def sources_done_again(seeds: int) -> int:
    """In how many clusters the first task is done again by a coordinator that takes over after the first stage."""
    again = 0
    for seed in range(seeds):
        cluster = Cluster(
            seed, faults=[at_coordinator(Kind.BREAK, "partition read", 2)], odds=Odds(), bytes_max=MUCH, slow=SlowRule()
        )
        trace: list[str] = []
        cluster.watch(trace.append)
        cluster.run()
        assert not cluster.clients or cluster.clients[0].error is None
        again += any("StartTask 0.0#65536" in line for line in trace)
    return again


def test_what_is_committed_and_held_is_not_done_again_by_another_coordinator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sources_done_again(60) == 0
    monkeypatch.setattr(WrittenJournal, "is_kept_by_all", lambda self, agents, mark: True)
    monkeypatch.setattr(WrittenJournal, "update_for", lambda self, agent: None)
    right = Readers.unknown_to
    monkeypatch.setattr(Readers, "unknown_to", lambda *given: right(*given) & set())  # which would see it first
    assert sources_done_again(60) > 20, "without a journal it is"


def test_attempts_of_two_coordinators_with_one_number_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = StageRun.resume
    monkeypatch.setattr(StageRun, "resume", lambda run, first_attempt: right(run, 0))
    caught(faults=[at_coordinator(Kind.CRASH, "task begun", 2)], odds=Odds())


def test_agent_that_forgets_to_end_a_job_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module.Agent, "end_job", lambda self, job_id, keep_result: None)
    assert "still holds job" in str(caught())


def test_agent_that_thaws_and_never_asks_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeldJobs, "_check", lambda self, held, watched: None)
    assert "still holds job" in str(caught())
