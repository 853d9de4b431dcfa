"""A sort by ranges goes on when an agent is lost, before its ranges are cut and after; they are cut once."""

from __future__ import annotations

import pytest

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.coordinator import Coordinator
from sabot.agent.coordination.partition_counts import choose_partitions
from sabot.agent.coordination.range_choice import RANGES_MAX, RangeRule, Ranges

from .job_world import key_sample, make_coordinator, member, run_to_end, sort_plan
from .recovery_world import key_of
from .test_coordinator_recovery import Job


def ranges_of(job: Job) -> list[Ranges]:
    found = [command.ranges for command in job.started(1)]
    assert None not in found
    return [ranges for ranges in found if ranges is not None]


def assert_in_order(job: Job) -> None:
    """Each partition of the answer has keys that the one before it does not exceed."""
    finish = job.told[-1]
    assert isinstance(finish, ev.Finish)
    highest = -1
    for task, part in enumerate(finish.finished.partitions):
        rows = job.agents.results[int(part.agent_id.removeprefix("agent-")), task]
        keys = [key_of(row) for row in rows]
        assert not keys or min(keys) >= highest
        highest = max([*keys, highest])


def test_agent_lost_before_the_ranges_are_cut_costs_its_home_partitions_alone() -> None:
    job = Job(sort_plan(5, 6, 7, 8, 9), 3)
    job.go_on(ev.StartTask, stage_id=0, count=5)
    job.kill(1)
    job.check()
    assert_in_order(job)
    assert len(set(ranges_of(job))) == 1
    again = [command for command in job.started(0) if command.attempt > 0]
    assert again and all(command.partitions in (None, frozenset({command.task})) for command in again)
    assert all(len(command.inputs[0][1]) == 1 for command in job.started(1))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_agent_lost_after_the_ranges_are_cut_is_replaced_by_the_same_ranges(count: int) -> None:
    job = Job(sort_plan(5, 6, 7, 8, 9), 3)
    job.go_on(ev.StartTask, stage_id=1, count=count)
    job.kill(2)
    job.check()
    assert_in_order(job)
    assert len(set(ranges_of(job))) == 1
    assert any(command.attempt for command in job.started(1)) or any(command.attempt for command in job.started(0))


def test_agent_lost_with_sorted_ranges_costs_those_alone() -> None:
    job = Job(sort_plan(50, 60, 70), 3)
    job.go_on(ev.StartTask, stage_id=2, count=5)
    job.kill(1)
    job.check()
    assert_in_order(job)
    replays = [command for command in job.started(1) if command.attempt > 0]
    assert replays and all(command.partitions for command in replays)
    assert len(set(ranges_of(job))) == 1


def test_ranges_cut_otherwise_for_a_replay_would_give_a_wrong_answer() -> None:
    job = Job(sort_plan(50, 60, 70), 3)
    job.go_on(ev.StartTask, stage_id=2, count=5)
    job.kill(1)
    run = job.coordinator._stages[1]
    assert run.ranges is not None
    run.ranges = Ranges(count=run.ranges.count, boundaries=key_sample([2**40] * (run.ranges.count - 1)))
    with pytest.raises(AssertionError):
        job.check()


def run(*row_groups: int, rule: RangeRule, agents: int = 2) -> tuple[Coordinator, list[ev.Command]]:
    plan = sort_plan(*row_groups)
    coordinator = make_coordinator(plan, *[member(index) for index in range(agents)], ranges=rule)
    return coordinator, run_to_end(plan, coordinator)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param(RangeRule(), 1, id="few rows are one range"),
        pytest.param(RangeRule(rows_min=10), 4, id="each slot has its ranges"),
        pytest.param(RangeRule(rows_min=30), 3, id="but none of too few rows"),
        pytest.param(RangeRule(bytes_max=160), 10, id="each fits into memory"),
        pytest.param(RangeRule(bytes_max=1), 512, id="there is a most"),
    ],
)
def test_number_of_ranges_goes_by_rows_and_bytes(rule: RangeRule, expected: int) -> None:
    _, commands = run(50, 50, rule=rule)
    sorts = {one.task for one in commands if isinstance(one, ev.StartTask) and one.stage_id == 2}
    assert len(sorts) == expected
    finish = commands[-1]
    assert isinstance(finish, ev.Finish)
    assert [shuffle.num_partitions for shuffle in finish.finished.shuffles] == [2, expected]


def test_home_shuffle_has_a_partition_a_task_and_a_range_shuffle_as_many_as_there_may_be() -> None:
    assert choose_partitions(sort_plan(5, 6, 7), default=8, split_bytes=1, slots=1) == {0: 3, 1: RANGES_MAX}


def test_tasks_of_a_home_shuffle_run_where_their_partition_lies() -> None:
    coordinator, commands = run(*[10] * 8, rule=RangeRule())
    owners = coordinator._stages.table.owners
    homes = [one for one in commands if isinstance(one, ev.StartTask) and one.stage_id == 0]
    assert len(homes) == 8
    assert all(one.agent == owners[one.task] for one in homes)
