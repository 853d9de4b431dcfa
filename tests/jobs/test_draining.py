"""An agent that drains hands over what it owns and leaves while its jobs go on; nothing is done again."""

from __future__ import annotations

import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot
from sabot.agent.coordination import job_events as ev
from sabot.dataflow.stage import PartitionSplit, StoredSplit
from sabot.errors import PeerLost, SabotError, ShuffleIntegrityError, UsageError
from sabot.wire.agent_pb2 import StageProgress
from sabot.wire.failure import to_failure
from tests.agent.processes import Agents

from .held_job import NOBODY_HELPS, lingering, until
from .job_world import group_plan, join_plan, member
from .test_coordinator_recovery import Job

GROUPS = (5, 6, 7, 8, 9, 10, 11, 12)
ROWS = 21_000
FILES = 150


def drain(job: Job, agent: int, *, stays: bool = False) -> list[ev.Command]:
    return job.tell(ev.AgentDraining(agent=agent, stays=stays))


def given_to(agent: int, commands: list[ev.Command]) -> list[ev.StartTask]:
    """But for what it is to send on."""
    started = [command for command in commands if isinstance(command, ev.StartTask) and command.agent == agent]
    return [command for command in started if not isinstance(command.split, StoredSplit)]


def moves(commands: list[ev.Command]) -> list[ev.StartTask]:
    return [one for one in commands if isinstance(one, ev.StartTask) and isinstance(one.split, StoredSplit)]


def stages_of(job: Job) -> list[StageProgress]:
    finish = job.told[-1]
    assert isinstance(finish, ev.Finish)
    return list(finish.finished.stages)


def check_nothing_was_done_again(job: Job) -> None:
    job.check()
    finish = job.told[-1]
    assert isinstance(finish, ev.Finish) and not finish.finished.agents_lost
    assert all(stage.tasks_redone == 0 for stage in stages_of(job))
    assert not any(isinstance(command, ev.CancelTask) for command in job.told)


def farewell(job: Job, agent: int) -> ev.Command:
    """What the agent is told last, which must be while the job goes on."""
    [(place, command)] = [
        (place, one) for place, one in enumerate(job.told) if isinstance(one, ev.EndJob) and one.agent == agent
    ]
    assert any(isinstance(one, ev.StartTask) for one in job.told[place:])
    return command


def test_draining_agent_hands_over_what_it_owns_and_leaves_while_the_job_goes_on() -> None:
    job = Job(group_plan(*GROUPS), 3)
    job.go_on(ev.StartTask, stage_id=0, count=3)
    before = len(job.told)
    drain(job, 1)
    check_nothing_was_done_again(job)
    assert not given_to(1, job.told[before:])
    assert job.agents.moved == 2 * len(moves(job.told)) > 0  # it owned two partitions of six
    assert farewell(job, 1) == ev.EndJob(agent=1, keep_result=False)
    assert 1 not in job.agents.tables[0].owners and 1 not in job.coordinator.living
    assert all(one.split.share is None for one in job.started(1) if isinstance(one.split, PartitionSplit))


def test_table_changes_when_nothing_is_under_way_that_goes_by_it() -> None:
    job = Job(group_plan(*GROUPS), 2)
    job.go_on(ev.StartTask, stage_id=0, count=3)
    drain(job, 1)
    running = 0
    while not any(isinstance(command, ev.Reown) for command in job.told):
        [event] = job.agents.answer(job.waiting.pop(0))
        running = len(given_to(0, job.waiting)) + len(given_to(1, job.waiting))
        job.tell(event)
    assert running == 0


def test_what_is_read_already_is_not_sent_on() -> None:
    job = Job(group_plan(*GROUPS), 3)
    job.go_on(ev.StartTask, stage_id=1)
    while job.waiting and len(job.waiting) > 1:  # all partitions but a last one
        for event in job.agents.answer(job.waiting.pop(0)):
            job.tell(event)
    drain(job, 1)
    check_nothing_was_done_again(job)
    assert not moves(job.told)


def test_agent_that_drains_while_its_partitions_are_read_ends_what_it_has_begun() -> None:
    job = Job(group_plan(*GROUPS), 2)
    job.go_on(ev.StartTask, stage_id=1)
    drain(job, 1)
    check_nothing_was_done_again(job)


def test_agent_lost_while_it_hands_over_costs_what_it_held_and_no_more() -> None:
    job = Job(group_plan(*GROUPS), 3)
    job.go_on(ev.StartTask, stage_id=0, count=6)
    drain(job, 1)
    while not moves(job.waiting):
        for event in job.agents.answer(job.waiting.pop(0)):
            job.tell(event)
    job.kill(1)
    job.check()
    finish = job.told[-1]
    assert isinstance(finish, ev.Finish) and finish.finished.agents_lost == ["agent-1"]
    redone = {one.task for one in job.started(0) if one.partitions is not None and one not in moves(job.told)}
    assert redone and all(one.partitions is None or len(one.partitions) == 2 for one in job.started(0))
    assert stages_of(job)[0].tasks_redone == len(redone)


def test_new_owner_lost_before_it_has_all_costs_its_own_part_and_the_leaver_sends_again() -> None:
    job = Job(group_plan(*GROUPS), 3)
    job.go_on(ev.StartTask, stage_id=0, count=6)
    drain(job, 1)
    while not moves(job.waiting):
        for event in job.agents.answer(job.waiting.pop(0)):
            job.tell(event)
    of_leaver = {partition for one in moves(job.waiting) for partition in one.partitions or ()}
    job.kill(2)
    job.check()
    again = [one for one in job.started(0) if one.partitions is not None and one not in moves(job.told)]
    assert again and all(one.partitions is not None and not one.partitions & of_leaver for one in again)
    assert job.agents.moved


@pytest.mark.parametrize("error", [ShuffleIntegrityError("wrong"), UsageError("not held"), PeerLost("no answer")])
def test_rows_that_cannot_be_sent_on_are_made_anew(error: SabotError) -> None:
    job = Job(group_plan(*GROUPS), 3)
    job.go_on(ev.StartTask, stage_id=0, count=6)
    drain(job, 1)
    failed = 0
    while job.waiting:
        command = job.waiting.pop(0)
        if isinstance(command, ev.StartTask) and isinstance(command.split, StoredSplit):
            which = {name: getattr(command, name) for name in ("agent", "stage_id", "task", "attempt")}
            job.tell(ev.TaskFailed(**which, failure=to_failure(error)))
            failed += 1
            continue
        for event in job.agents.answer(command):
            job.tell(event)
    job.check()
    assert stages_of(job)[0].tasks_redone == failed // (2 if isinstance(error, PeerLost) else 1) > 0
    assert farewell(job, 1)


def test_piece_of_a_table_is_read_by_its_holder_which_stays_for_it() -> None:
    job = Job(join_plan(*GROUPS, uploads=(1, 1)), 3)
    drain(job, 1)
    check_nothing_was_done_again(job)
    assert {command.agent for command in job.started(1) if not isinstance(command.split, StoredSplit)} == {1}
    assert not given_to(1, [command for command in job.told if command not in job.started(1)])
    assert 1 not in job.agents.tables[0].owners and 1 in job.coordinator.living


def test_agent_that_coordinates_hands_over_and_stays() -> None:
    job = Job(group_plan(*GROUPS), 3)
    job.go_on(ev.StartTask, stage_id=0, count=3)
    drain(job, 0, stays=True)
    check_nothing_was_done_again(job)
    assert job.agents.moved and 0 in job.coordinator.living


def test_newcomer_that_owns_nothing_is_given_what_another_hands_over() -> None:
    job = Job(group_plan(*GROUPS), 2)
    job.go_on(ev.StartTask, stage_id=0, count=3)
    job.tell(ev.AgentJoined(member=member(2)))
    drain(job, 1)
    check_nothing_was_done_again(job)
    assert len(job.agents.tables[2].owned_by(2)) == 2


def test_nothing_is_handed_over_to_another_that_leaves() -> None:
    job = Job(group_plan(*GROUPS), 4)
    job.go_on(ev.StartTask, stage_id=0, count=3)
    drain(job, 0, stays=True)
    while not moves(job.waiting):
        for event in job.agents.answer(job.waiting.pop(0)):
            job.tell(event)
    drain(job, 1)
    check_nothing_was_done_again(job)
    assert set(job.agents.tables[2].owners) == {2, 3} and job.agents.tables[2].epoch == 2


def test_job_goes_on_where_all_its_agents_drain() -> None:
    job = Job(group_plan(*GROUPS), 2)
    job.go_on(ev.StartTask, stage_id=0)
    drain(job, 0)
    drain(job, 1)
    check_nothing_was_done_again(job)


def test_agent_told_to_stop_in_the_middle_of_a_job_is_gone_before_it_ends_and_nothing_is_done_again(
    tmp_path: Path,
) -> None:
    table = pa.table({"k": [i * 7919 % 97 for i in range(ROWS)], "v": list(range(ROWS))})
    (tmp_path / "t").mkdir()
    for index in range(FILES):
        pq.write_table(table.slice(index * ROWS // FILES, ROWS // FILES), tmp_path / "t" / f"{index:02}.parquet")
    agents = Agents(tmp_path / "agents")
    try:
        first = agents.start("first", environment={"SABOT_JOBS_SPLIT_BYTES": "1024", **NOBODY_HELPS})
        leaver = agents.start("leaver", "--join", first.control)
        until(lambda: len(first.members()) == 2)
        with sabot.connect(first.control, progress=False) as session:
            data = session.read_parquet(str(tmp_path / "t"))
            data = data.map_batches(lingering(tmp_path), schema=data.schema, processes=False)
            job = data.group_by("k").aggregate([("v", "sum")]).submit(timeout_s=120)
            until(lambda: any(stage.tasks_done > 4 for stage in job.progress.stages))
            leaver.signal(signal.SIGTERM)
            assert leaver.wait() == 0
            assert not job.done()
            (tmp_path / "go on").touch()
            with job.result() as result:
                expected = table.group_by("k").aggregate([("v", "sum")]).sort_by("k")
                assert result.to_table().sort_by("k").select(expected.column_names).equals(expected)
                assert result.receipt.exact and not result.stats.agents_lost
                assert all(stage.tasks_redone == 0 for stage in result.stats.stages)
    finally:
        agents.close()
