"""Attempts under way when an agent is lost: what has begun to send by the old owner table is done again, alone."""

from __future__ import annotations

from sabot.agent.coordination import job_events as ev
from sabot.errors import JobCancelled
from sabot.wire.failure import to_failure

from .job_world import group_plan, kinds, tell
from .test_coordinator_recovery import Job


def test_no_task_starts_before_all_who_are_left_know_the_new_epoch() -> None:
    job = Job(group_plan(*[5] * 3), 3)
    job.go_on(ev.StartTask, stage_id=0)
    commands = job.kill(2)
    reowns = [command for command in commands if isinstance(command, ev.Reown)]
    assert {command.agent for command in reowns} == {0, 1} and all(command.table.epoch == 1 for command in reowns)
    assert set(reowns[0].table.owners) == {0, 1} and reowns[0].table.lost == {2}
    assert kinds(commands)["StartTask"] == 0
    assert tell(job.coordinator, ev.Reowned(agent=0, epoch=1)) == []
    assert tell(job.coordinator, ev.Reowned(agent=1, epoch=0)) == []
    started = tell(job.coordinator, ev.Reowned(agent=1, epoch=1))
    assert kinds(started)["StartTask"] == 1 and {command.epoch for command in started} == {1}  # type: ignore[union-attr]


def test_attempts_that_have_sent_by_the_old_table_are_done_again_whatever_came_of_them() -> None:
    job = Job(group_plan(*[5] * 6), 3)
    job.go_on(ev.StartTask, stage_id=0)
    running = {(one.task, one.attempt): one for one in job.started(0)}
    late = [job.agents.answer(one)[0] for one in running.values()]
    commands = job.kill(2)
    cancelled = [one for one in commands if isinstance(one, ev.CancelTask)]
    assert {one.agent for one in cancelled} == {2}
    job.waiting = [one for one in job.waiting if not isinstance(one, ev.StartTask)]
    for event in late:
        job.tell(event)
    job.check()
    assert {one.task for one in job.started(0) if one.attempt > 0} == {task for task, _ in running}


def test_failure_of_an_attempt_that_has_sent_by_the_old_table_is_no_failure_of_its_task() -> None:
    job = Job(group_plan(*[5] * 6), 3, attempts_max=1)
    job.go_on(ev.StartTask, stage_id=0)
    doomed = next(one for one in job.waiting if isinstance(one, ev.StartTask) and one.agent == 0)
    job.kill(2)
    job.waiting.remove(doomed)
    failure = to_failure(JobCancelled("the agent has ended it, for it has heard of the new table"))
    which = {name: getattr(doomed, name) for name in ("agent", "stage_id", "task", "attempt")}
    job.tell(ev.TaskFailed(**which, failure=failure, sent_epoch=0))
    job.check()
    assert job.coordinator.living == (0, 1)


def test_attempts_that_have_sent_nothing_yet_go_on_when_an_agent_is_lost() -> None:
    job = Job(group_plan(*[5] * 6), 3)
    job.go_on(ev.StartTask, stage_id=0)
    begun = {one.task for one in job.started(0) if one.agent != 2}
    job.kill(2)
    job.waiting.sort(key=lambda one: not isinstance(one, ev.Reown))
    job.check()
    assert begun and not begun & {one.task for one in job.started(0) if one.attempt > 0}
