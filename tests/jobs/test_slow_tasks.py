"""A task that is slow beside the others of its stage gets a second attempt elsewhere; one counts, and once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.slow_tasks import Durations, SlowRule
from sabot.dataflow.stage import JobPlan, PartitionSplit, ResultOutput, TableInput
from sabot.errors import LimitReached, PeerLost
from sabot.wire.agent_pb2 import StageProgress
from sabot.wire.failure import to_failure

from .job_world import JOB_ID, SCHEMA, group_plan, hot_plan, make_coordinator, member, pieces, stage, tell
from .recovery_world import Agents, source_rows
from .test_coordinator_recovery import answer_of

RULE = SlowRule(factor=3.0, median_s_min=0.5)


class Job:
    """Two agents with two slots each, whose commands wait until a test has them carried out."""

    def __init__(self, plan: JobPlan, *, slots: int = 2) -> None:
        self.plan = plan
        agents = [member(index, slots=slots) for index in range(2)]
        self.coordinator = make_coordinator(plan, *agents, slow=RULE)
        self.agents = Agents(plan, self.coordinator)
        self.told: list[ev.Command] = []
        self.waiting: list[ev.Command] = []
        self.tell(ev.JobStarted())

    def tell(self, event: ev.Event) -> list[ev.Command]:
        commands = tell(self.coordinator, event)
        self.told += commands
        self.waiting += [command for command in commands if not isinstance(command, ev.CancelTask)]
        return commands

    def carry_out(self, command: ev.Command) -> list[ev.Command]:
        self.waiting.remove(command)
        return [told for event in self.agents.answer(command) for told in self.tell(event)]

    def go_on(self, *, but: ev.StartTask | None = None) -> None:
        """Carry out all but one."""
        while left := [command for command in self.waiting if command is not but]:
            self.carry_out(left[0])

    def start(self, stage_id: int, task: int) -> ev.StartTask:
        """Go on until that task is started, and do not carry it out."""
        while True:
            for command in self.waiting:
                if isinstance(command, ev.StartTask) and (command.stage_id, command.task) == (stage_id, task):
                    return command
            self.carry_out(self.waiting[0])

    def pass_time(self, elapsed_s: float) -> list[ev.StartTask]:
        return [one for one in self.tell(ev.TimePassed(elapsed_s=elapsed_s)) if isinstance(one, ev.StartTask)]

    def check(self, stage_id: int) -> StageProgress:
        """The answer is exact; gives what is said of the stage."""
        finish = self.told[-1]
        assert isinstance(finish, ev.Finish)
        wanted = {
            (one.stage_id, one.task): source_rows(one.split)
            for one in self.told
            if isinstance(one, ev.StartTask) and not isinstance(one.split, PartitionSplit)
        }
        assert Counter(answer_of(self.agents, self.told)) == Counter(r for rows in wanted.values() for r in rows)
        for receipt in finish.finished.shuffles:
            assert (receipt.rows_in, receipt.sum_in) == (receipt.rows_out, receipt.sum_out)
        return finish.finished.stages[stage_id]


@pytest.fixture
def job() -> Iterator[Job]:
    """A job whose scan of the third file hangs."""
    held = Job(group_plan(5, 6, 7, 8))
    held.go_on(but=held.start(0, 2))
    yield held


def test_slow_scan_is_done_by_another_agent_and_counted_once(job: Job) -> None:
    (slow,) = job.waiting
    assert isinstance(slow, ev.StartTask)
    assert job.pass_time(1.4) == []
    (second,) = job.pass_time(1.6)
    assert (second.task, second.attempt, second.agent) == (2, 1, 1 - slow.agent)
    assert second.split == slow.split and second.partitions == slow.partitions
    told = job.carry_out(second)
    assert told[0] == ev.CancelTask(agent=slow.agent, stage_id=0, task=2, attempt=0)
    job.go_on(but=slow)
    assert job.coordinator.ended
    said = job.check(0)
    assert (said.second_attempts, said.tasks_redone, said.tasks_done) == (1, 0, 4)


def test_what_the_slow_attempt_says_later_counts_no_more(job: Job) -> None:
    (slow,) = job.waiting
    (second,) = job.pass_time(10.0)
    job.carry_out(second)
    job.carry_out(slow)
    job.go_on()
    job.check(0)


def test_first_attempt_that_ends_before_its_second_one_cancels_it(job: Job) -> None:
    (slow,) = job.waiting
    (second,) = job.pass_time(10.0)
    told = job.carry_out(slow)
    assert told[0] == ev.CancelTask(agent=second.agent, stage_id=0, task=2, attempt=1)
    job.go_on(but=second)
    job.check(0)


def test_a_task_has_two_attempts_at_most(job: Job) -> None:
    assert len(job.pass_time(10.0)) == 1
    assert job.pass_time(100.0) == []


def test_nothing_is_slow_before_half_of_the_stage_is_done() -> None:
    job = Job(group_plan(5, 6, 7, 8))
    job.start(0, 2)
    assert job.pass_time(1000.0) == []


def test_long_tasks_may_be_as_long_as_they_are() -> None:
    job = Job(group_plan(5, 6, 7, 8))
    slow = job.start(0, 2)
    job.pass_time(10.0)
    job.go_on(but=slow)
    assert job.pass_time(29.9) == []
    assert len(job.pass_time(30.0)) == 1


def test_agent_without_a_free_slot_takes_no_second_attempt() -> None:
    job = Job(group_plan(5, 6, 7, 8), slots=1)
    slow = job.start(0, 2)
    other = job.start(0, 3)
    assert slow.agent != other.agent
    for command in list(job.waiting):
        if command not in (slow, other):
            job.carry_out(command)
    assert job.pass_time(1000.0) == [], "the other one is busy"


def test_piece_of_a_table_is_read_by_its_holder_alone() -> None:
    plan = JobPlan(
        job_id=JOB_ID,
        stages=(stage(0, TableInput(table_id="t", schema=SCHEMA), ResultOutput()),),
        uploads={"t": pieces(0, 0, 0, 1)},
    )
    job = Job(plan)
    job.go_on(but=job.start(0, 2))
    assert job.pass_time(1000.0) == []


def test_slow_reader_is_helped_by_one_that_pulls_its_partition_from_the_owner() -> None:
    job = Job(hot_plan(5, 6, 7))
    slow = job.start(2, 3)
    job.go_on(but=slow)
    (second,) = job.pass_time(1000.0)
    assert isinstance(second.split, PartitionSplit) and second.split.share is not None
    assert (second.split.partition, second.split.share.index, second.split.share.count) == (3, 0, 1)
    assert second.inputs == slow.inputs and second.agent != slow.agent
    job.carry_out(second)
    job.go_on(but=slow)
    assert job.check(2).second_attempts == 1


def test_second_attempt_that_pulls_ends_with_the_owner_it_pulls_from() -> None:
    job = Job(group_plan(5, 6, 7, 8))
    slow = job.start(1, 3)
    job.go_on(but=slow)
    (second,) = job.pass_time(1000.0)
    lost = PeerLost("agent agent-1 did not answer", agent="agent-1")
    assert slow.agent == 1 and second.agent == 0
    job.agents.dead.add(1)
    told = job.tell(ev.AgentLost(agent=1, failure=to_failure(lost)))
    cancelled = {(one.agent, one.attempt) for one in told if isinstance(one, ev.CancelTask) and one.stage_id == 1}
    assert {(1, 0), (0, 1)} <= cancelled
    job.waiting.remove(slow)
    job.waiting.remove(second)
    job.go_on()
    job.check(1)


def failed(command: ev.StartTask, error: Exception) -> ev.TaskFailed:
    which = {name: getattr(command, name) for name in ("agent", "stage_id", "task", "attempt")}
    return ev.TaskFailed(**which, failure=to_failure(error))


def test_second_attempt_for_which_there_is_no_memory_costs_the_job_nothing(job: Job) -> None:
    (second,) = job.pass_time(10.0)
    job.tell(failed(second, LimitReached("memory.bytes_max")))
    job.waiting.remove(second)
    assert not job.coordinator.ended
    job.go_on()
    assert job.check(0).second_attempts == 1


def test_exception_of_the_users_function_ends_the_job_in_a_second_attempt_too(job: Job) -> None:
    (second,) = job.pass_time(10.0)
    told = job.tell(failed(second, ZeroDivisionError("seven")))
    assert job.coordinator.ended and isinstance(told[-1], ev.Fail)


def test_broken_attempt_is_not_tried_again_while_its_other_one_runs(job: Job) -> None:
    (slow,) = job.waiting
    (second,) = job.pass_time(10.0)
    told = job.tell(failed(slow, PeerLost("broken off")))
    assert [type(one) for one in told] == [ev.CheckAgents]
    job.waiting.remove(slow)
    job.go_on(but=second)
    assert job.waiting == [second]
    job.go_on()
    said = job.check(0)
    assert (said.second_attempts, said.tasks_redone) == (1, 0)


def test_median_is_of_those_that_are_done() -> None:
    durations = Durations()
    for seconds in (9.0, 1.0, 5.0, 2.0):
        durations.add(seconds)
    assert durations.median_s == 2.0
    assert SlowRule(factor=2.0).limit_s(durations, tasks=8) == 4.0
    assert SlowRule(factor=2.0).limit_s(durations, tasks=9) is None
    assert SlowRule().limit_s(durations, tasks=4) is None
