"""Copies of a broadcast when agents are lost: what nobody reads is not sent again, what somebody reads is, alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from sabot.agent.coordination import job_events as ev
from sabot.dataflow.stage import JobPlan, TableInput, shuffle_id
from sabot.errors import ShuffleIntegrityError
from sabot.wire.failure import to_failure

from .job_world import JOB_ID, SCHEMA, broadcast_plan, make_coordinator, member, pieces
from .test_coordinator_recovery import Job, answer_of
from .test_newcomers import join


def copies_read(job: Job, stage_id: int) -> dict[int, set[int]]:
    """By agent, which copies its tasks of that stage were told to read."""
    found: dict[int, set[int]] = {}
    for command in job.started(stage_id):
        found.setdefault(command.agent, set()).update(copy.partition for copy in command.copies)
    return found


def test_every_task_reads_its_own_agents_copy() -> None:
    job = Job(broadcast_plan(*[5] * 8), 3)
    job.check()
    assert job.coordinator.num_partitions[0] == job.coordinator.num_partitions[1] == 3
    assert copies_read(job, 2) == copies_read(job, 3) == {0: {0}, 1: {1}, 2: {2}}


def test_copies_are_counted_as_copies() -> None:
    job = Job(broadcast_plan(*[5] * 8), 3)
    job.check()
    finish = job.told[-1]
    assert isinstance(finish, ev.Finish)
    receipts = {receipt.stage_id: receipt for receipt in finish.finished.shuffles}
    tasks = {stage.stage_id: stage.tasks_total for stage in finish.finished.stages}
    for copied, reader in ((0, 2), (1, 3)):
        receipt = receipts[copied]
        assert (receipt.rows_in, receipt.copies) == (5, 5 * (tasks[reader] - 1))
        assert receipt.rows_in + receipt.copies == receipt.rows_out


def test_copy_of_a_lost_agent_is_not_sent_again() -> None:
    job = Job(broadcast_plan(*[5] * 8), 3)
    job.go_on(ev.StartTask, stage_id=2, count=4)
    job.kill(1)
    job.check()
    assert not any(command.attempt for stage_id in (0, 1) for command in job.started(stage_id))
    assert job.agents.sent_again[0] == job.agents.sent_again[1] == 0
    assert {agent for agent, copies in copies_read(job, 3).items() if copies == {agent}} == {0, 2}


def test_upload_that_was_copied_outlives_the_agent_that_held_it() -> None:
    plan = broadcast_plan(*[5] * 8)
    table = replace(plan.stages[0], input=TableInput(table_id="t", schema=SCHEMA))
    job = Job(JobPlan(job_id=JOB_ID, stages=(table, *plan.stages[1:]), uploads={"t": pieces(1)}), 3)
    job.agents.check_copies = False
    job.go_on(ev.StartTask, stage_id=2, count=4)
    job.kill(1)
    job.go_on()
    assert isinstance(job.told[-1], ev.Finish)


def test_copy_found_wrong_is_sent_again_alone_and_its_readers_begin_again() -> None:
    job = Job(broadcast_plan(*[5] * 8), 3)
    job.go_on(ev.StartTask, stage_id=2)
    mine = [one for one in job.waiting if isinstance(one, ev.StartTask) and one.agent == 1]
    assert len(mine) == 2  # both read the copy that one of them finds wrong
    name = shuffle_id(JOB_ID, 0)
    failure = to_failure(ShuffleIntegrityError("a row is missing", shuffle=name, partition=1))
    job.waiting.remove(mine[0])
    commands = job.tell(ev.TaskFailed(agent=1, stage_id=2, task=mine[0].task, attempt=0, failure=failure))
    assert [one.task for one in commands if isinstance(one, ev.CancelTask)] == [mine[1].task]
    job.waiting.remove(mine[1])
    job.check()
    assert job.agents.sent_again == Counter({0: 1})
    assert [one.partitions for one in job.started(0) if one.attempt] == [frozenset({1})]


def test_copy_that_is_being_sent_again_when_its_reader_is_lost_is_nobodys() -> None:
    job = Job(broadcast_plan(*[5] * 6), 3)
    job.go_on(ev.StartTask, stage_id=2, count=3)  # agent 0 has done its part
    wrong = next(one for one in job.waiting if isinstance(one, ev.StartTask) and one.agent == 1)
    failure = to_failure(ShuffleIntegrityError("a row is missing", shuffle=shuffle_id(JOB_ID, 0), partition=1))
    job.tell(ev.TaskFailed(agent=1, stage_id=2, task=wrong.task, attempt=0, failure=failure))
    job.waiting = [one for one in job.waiting if not (isinstance(one, ev.StartTask) and one.agent == 1)]
    job.go_on(ev.StartTask, stage_id=0, attempt=1)
    replay = next(one for one in job.started(0) if one.attempt == 1)
    assert replay.agent != 1 and replay.partitions == {1}
    cancelled = [one for one in job.kill(1) if isinstance(one, ev.CancelTask)]
    assert (replay.stage_id, replay.task, replay.attempt) in {
        (one.stage_id, one.task, one.attempt) for one in cancelled
    }
    job.waiting.remove(replay)
    job.check()


def test_agents_that_came_after_the_copies_read_those_of_others() -> None:
    job = Job(broadcast_plan(*[5] * 8), 3)
    job.go_on(ev.StartTask, stage_id=2)
    stages = job.coordinator._stages
    assert [stages._copy_of(agent, 0) for agent in (0, 2, 3, 7)] == [0, 2, 0, 0]
    job.kill(0)
    assert [stages._copy_of(agent, 0) for agent in (1, 2, 3, 7)] == [1, 2, 1, 1]


def test_newcomer_joins_rows_with_the_copy_of_another_agent_and_goes_on_when_that_is_lost() -> None:
    job = Job(broadcast_plan(*[5] * 12), 2)
    job.go_on(ev.StartTask, stage_id=2)
    join(job, 2)
    job.go_on(ev.StartTask, stage_id=2, count=9)
    assert copies_read(job, 2)[2] == {0}
    job.kill(0)
    job.check()
    assert copies_read(job, 2)[2] <= {0, 1}
    assert job.agents.sent_again[0] == 0


@pytest.mark.parametrize("wrong", ["fewer", "other", "more"])
def test_attempt_whose_copies_are_not_alike_is_refused(wrong: str) -> None:
    job = Job(broadcast_plan(*[5] * 8), 3)
    job.go_on(ev.StartTask, stage_id=0)
    (event,) = job.agents.answer(next(one for one in job.waiting if isinstance(one, ev.StartTask)))
    assert isinstance(event, ev.TaskSucceeded)
    match wrong:
        case "fewer":
            event.reply.sent.pop()
        case "other":
            event.reply.sent[0].content_sum ^= 1
        case "more":
            event.reply.sent.append(event.reply.sent[0])
    (failed,) = [one for one in job.tell(event) if isinstance(one, ev.Fail)]
    assert "copies of them were not sent" in failed.failure.message


def test_answer_is_complete_whoever_is_lost() -> None:
    for victim in range(3):
        job = Job(broadcast_plan(*[5] * 8), 3)
        job.go_on(ev.StartTask, stage_id=3, count=2)
        job.kill(victim)
        job.check()
        assert len(answer_of(job.agents, job.told)) == 40


def test_one_agent_has_one_copy() -> None:
    assert make_coordinator(broadcast_plan(5, 5), member(0)).num_partitions[0] == 1
