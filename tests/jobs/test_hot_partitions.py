"""A hot partition of a join is shared by several tasks where that gives the same rows, and what they read adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc
import pytest

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.hot_partitions import HotRule, SentRows, share_hot
from sabot.dataflow.stage import (
    Aggregate,
    Filter,
    HashShuffle,
    Head,
    Output,
    PartitionSplit,
    ResultOutput,
    Share,
    ShuffleInput,
    Sort,
    Split,
    Stage,
    Step,
)
from sabot.errors import ShuffleIntegrityError
from sabot.wire.agent_pb2 import PartitionSum
from sabot.wire.failure import from_failure, to_failure

from . import recovery_world
from .job_world import JOB_ID, JOIN, hot_plan, stage
from .test_coordinator_recovery import Job

RULE = HotRule(factor=2.0, rows_min=0)
EVERY = HotRule(factor=1.0, rows_min=0)
LEFT_OUTER = replace(JOIN, join_type="left outer")


def join_stage(*steps: Step, output: Output | None = None) -> Stage:
    return stage(2, ShuffleInput(stage_ids=(0, 1)), output or ResultOutput(), steps or (JOIN,))


def shares(
    left: Sequence[int],
    right: Sequence[int],
    *,
    made: Stage | None = None,
    tasks: tuple[int, int] = (8, 8),
    slots: int = 4,
    rule: HotRule = RULE,
) -> list[list[Share | None]]:
    """The shares of each partition."""
    given: list[Split] = [PartitionSplit(partition=p) for p in range(len(left))]
    inputs = [SentRows(rows=left, tasks=tasks[0]), SentRows(rows=right, tasks=tasks[1])]
    splits = share_hot(made or join_stage(), given, inputs, slots=slots, rule=rule)
    found: list[list[Share | None]] = [[] for _ in left]
    for split in splits:
        assert isinstance(split, PartitionSplit)
        found[split.partition].append(split.share)
    assert [split.partition for split in splits] == sorted(split.partition for split in splits)  # type: ignore[union-attr]
    return found


def sides(found: list[list[Share | None]]) -> list[int | None]:
    return [part[0].side if part[0] is not None else None for part in found]


def test_hot_partition_is_cut_into_shares_of_about_the_mean() -> None:
    found = shares([70, 10, 10, 10], [2, 2, 2, 2])
    assert found[1:] == [[None]] * 3
    assert found[0] == [Share(index=i, count=3, side=0, rows=(24, 2)) for i in range(3)]


@pytest.mark.parametrize(
    ("join_type", "cut"),
    [
        ("inner", (0, 1)),
        ("left outer", (0,)),
        ("left semi", (0,)),
        ("left anti", (0,)),
        ("right outer", (1,)),
        ("right semi", (1,)),
        ("right anti", (1,)),
        ("full outer", ()),
    ],
)
def test_join_cuts_the_larger_side_where_no_row_of_the_other_is_given_for_itself(
    join_type: Any, cut: tuple[int, ...]
) -> None:
    made = join_stage(replace(JOIN, join_type=join_type))
    few, many = [2, 2, 2, 2], [70, 10, 10, 10]
    for side, (left, right) in enumerate([(many, few), (few, many)]):
        assert sides(shares(left, right, made=made)) == [side if side in cut else None, None, None, None]


@pytest.mark.parametrize(
    ("left", "tasks", "slots", "rule"),
    [
        pytest.param([20, 10, 10, 10], (8, 8), 4, RULE, id="below the factor"),
        pytest.param([70, 10, 10, 10], (8, 8), 4, HotRule(factor=2.0, rows_min=73), id="too few rows to matter"),
        pytest.param([70, 10, 10, 10], (1, 8), 4, RULE, id="one task has sent them all"),
        pytest.param([70, 10, 10, 10], (8, 8), 1, RULE, id="one slot"),
        pytest.param([70, 10, 10, 10], (8, 8), 4, HotRule(), id="no rule"),
        pytest.param([0, 0, 0, 0], (8, 8), 4, EVERY, id="no rows"),
    ],
)
def test_no_shares_where_nothing_is_gained(left: list[int], tasks: tuple[int, int], slots: int, rule: HotRule) -> None:
    assert shares(left, [2, 2, 2, 2], tasks=tasks, slots=slots, rule=rule) == [[None]] * 4


GROUP = Aggregate(keys=("v",), aggregations=(("k", "sum"),))


@pytest.mark.parametrize(
    ("steps", "output", "shared"),
    [
        pytest.param((JOIN, Filter(expression=pc.field("v") > 0)), ResultOutput(), True, id="row by row"),
        pytest.param((JOIN, GROUP), HashShuffle(keys=("v",)), True, id="partial aggregation"),
        pytest.param((JOIN, GROUP), HashShuffle(keys=("k",)), False, id="shuffled by other keys"),
        pytest.param((JOIN, GROUP), ResultOutput(), False, id="final aggregation"),
        pytest.param((JOIN, Sort(sorting=(("v", "ascending"),))), ResultOutput(), False, id="sort"),
        pytest.param((JOIN, Head(rows=3)), ResultOutput(), False, id="head"),
        pytest.param((GROUP,), HashShuffle(keys=("v",)), False, id="no join"),
    ],
)
def test_only_what_works_row_by_row_or_in_part_is_shared(steps: tuple[Step, ...], output: Output, shared: bool) -> None:
    found = shares([70, 10, 10, 10], [2, 2, 2, 2], made=join_stage(*steps, output=output))
    assert (len(found[0]) > 1) is shared


def hot_job(*row_groups: int, agents: int = 3) -> Job:
    """A join whose partitions of more than the mean are shared, about to read them."""
    job = Job(hot_plan(*row_groups), agents, hot=EVERY)
    job.go_on(ev.StartTask, stage_id=2)
    return job


def tasks_with_shares(job: Job) -> dict[int, list[ev.StartTask]]:
    """The first attempts of shares, by partition."""
    found: dict[int, list[ev.StartTask]] = {}
    for command in job.started(2):
        if isinstance(command.split, PartitionSplit) and command.split.share is not None and command.attempt == 0:
            found.setdefault(command.split.partition, []).append(command)
    return found


def test_first_share_is_the_owners_and_the_others_are_other_agents() -> None:
    job = hot_job(40, 40, 40, 40)
    job.check()
    shared = tasks_with_shares(job)
    assert shared
    for partition, commands in shared.items():
        agents = {command.split.share.index: command.agent for command in commands}  # type: ignore[union-attr]
        assert agents[0] == partition % 3
        assert len(set(agents.values())) == len(agents)


def test_copies_are_counted_as_copies() -> None:
    job = hot_job(40, 40, 40, 40)
    job.check()
    finish = job.told[-1]
    assert isinstance(finish, ev.Finish)
    left, right = finish.finished.shuffles
    assert left.copies == 0 and right.copies > 0
    assert right.rows_in + right.copies == right.rows_out
    assert (right.sum_in + right.sum_copies) % 2**64 == right.sum_out


@pytest.mark.parametrize("side", [0, 1])
def test_share_that_lost_a_row_is_found(side: int) -> None:
    job = hot_job(40, 40, 40, 40)
    while job.waiting:
        command = job.waiting.pop(0)
        for event in job.agents.answer(command):
            if isinstance(event, ev.TaskSucceeded) and event.stage_id == 2:
                assert isinstance(command, ev.StartTask) and isinstance(command.split, PartitionSplit)
                lossy = event.reply.released[side].sum
                if command.split.share is not None and lossy.rows:
                    lossy.rows -= 1
                    event.reply.rows_in -= 1
            job.tell(event)
    end = job.told[-1]
    assert isinstance(end, ev.Fail)
    error = from_failure(end.failure)
    assert isinstance(error, ShuffleIntegrityError) and error.facts["shuffle"] == f"{JOB_ID}/{side}"


def test_wrong_rows_of_one_share_end_the_other_attempts_that_read_them() -> None:
    job = hot_job(40, 40, 40, 40)
    partition, (first, *others) = next(
        (p, commands) for p, commands in tasks_with_shares(job).items() if len(commands) > 1
    )
    wrong = ShuffleIntegrityError("wrong", shuffle=f"{JOB_ID}/0", partition=partition, task=0, attempt=0, agent="a")
    job.waiting.remove(first)
    told = job.tell(
        ev.TaskFailed(agent=first.agent, stage_id=2, task=first.task, attempt=first.attempt, failure=to_failure(wrong))
    )
    cancelled = {command.task for command in told if isinstance(command, ev.CancelTask)}
    assert cancelled == {command.task for command in others}
    job.waiting = [command for command in job.waiting if command not in others]
    job.check()
    assert job.agents.sent_again[0] == 4  # one partition of each task


def test_owner_lost_ends_the_attempts_that_pull_from_it() -> None:
    job = hot_job(40, 40, 40, 40)
    partition, commands = next((p, c) for p, c in tasks_with_shares(job).items() if len(c) > 1)
    owner = partition % 3
    told = job.kill(owner)
    cancelled = {command.task for command in told if isinstance(command, ev.CancelTask)}
    assert {command.task for command in commands} <= cancelled
    job.waiting = [one for one in job.waiting if not (isinstance(one, ev.StartTask) and one.task in cancelled)]
    job.check()


def test_replay_with_other_float_sums_between_two_shares_does_not_fail_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    job = hot_job(40, 40, 40, 40)
    first = tasks_with_shares(job)[0][1]  # on an agent that stays
    job.waiting.remove(first)
    for event in job.agents.answer(first):
        job.tell(event)
    right = recovery_world.summed

    def otherwise(partition: int, rows: list[recovery_world.Row]) -> PartitionSum:
        found = right(partition, rows)
        found.content_sum += 0 if partition else found.rows
        return found

    monkeypatch.setattr(recovery_world, "summed", otherwise)
    job.kill(0)
    job.check()
