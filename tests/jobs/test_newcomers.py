"""An agent that comes while a job runs gets a part of what is left; one that cannot take part costs the job nothing."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot
from sabot.agent.coordination import job_events as ev
from sabot.dataflow.stage import PartitionSplit
from sabot.errors import PeerLost, UsageError
from sabot.wire.failure import to_failure
from tests.agent.processes import AgentProcess, Agents

from .held_job import NOBODY_HELPS, lingering, until
from .job_world import group_plan, kinds, member
from .recovery_world import lost
from .test_coordinator_recovery import Job

GROUPS = (5, 6, 7, 8, 9, 10, 11, 12)
ROWS = 20_000
FILES = 200
CUT_SMALL = {"SABOT_JOBS_SPLIT_BYTES": "1024", **NOBODY_HELPS}  # a task for each file
GETS_WORK_S = 1.0


def join(job: Job, index: int) -> list[ev.Command]:
    return job.tell(ev.AgentJoined(member=member(index)))


def tasks_of(job: Job, agent: int, stage_id: int) -> list[ev.StartTask]:
    return [command for command in job.started(stage_id) if command.agent == agent]


def test_newcomer_is_prepared_and_scans_without_a_new_epoch() -> None:
    job = Job(group_plan(*GROUPS), 2)
    job.go_on(ev.StartTask, stage_id=0)
    (prepare,) = join(job, 2)
    assert isinstance(prepare, ev.Prepare) and prepare.agent == 2 and prepare.table.living == (0, 1)
    job.waiting.remove(prepare)
    given = [command for event in job.agents.answer(prepare) for command in job.tell(event)]
    assert given and all(isinstance(one, ev.StartTask) and one.agent == 2 and one.epoch == 0 for one in given)
    job.check()
    assert kinds(job.told)["Reown"] == 0
    finish = job.told[-1]
    assert isinstance(finish, ev.Finish)
    assert list(finish.finished.agents_joined) == ["agent-2"] and not finish.finished.agents_lost
    assert all(stage.tasks_redone == 0 for stage in finish.finished.stages)


def test_newcomer_pulls_partitions_that_wait_for_a_busy_owner() -> None:
    job = Job(group_plan(*GROUPS), 1, partitions_per_slot=6)
    job.go_on(ev.StartTask, stage_id=1)
    join(job, 1)
    job.check()
    pulled = tasks_of(job, 1, 1)
    assert pulled
    for command in pulled:
        assert isinstance(command.split, PartitionSplit) and command.split.share is not None
        assert (command.split.share.index, command.split.share.count) == (0, 1)


def test_newcomer_becomes_an_owner_when_another_agent_is_lost() -> None:
    job = Job(group_plan(*GROUPS), 2)
    job.go_on(ev.StartTask, stage_id=0, count=3)
    join(job, 2)
    job.go_on(ev.StartTask, stage_id=1)
    told = job.kill(1)
    reowns = [command for command in told if isinstance(command, ev.Reown)]
    assert [command.agent for command in reowns] == [0, 2] and reowns[0].table.owned_by(2)
    job.check()


def test_newcomer_prepared_in_an_epoch_that_is_over_is_told_before_it_gets_work() -> None:
    job = Job(group_plan(*GROUPS), 3)
    job.go_on(ev.StartTask, stage_id=0)
    (prepare,) = join(job, 3)
    job.waiting.remove(prepare)
    job.kill(1)
    told = [command for event in job.agents.answer(prepare) for command in job.tell(event)]
    assert [type(command) for command in told] == [ev.Reown]
    job.check()
    assert all(command.epoch == 1 for command in tasks_of(job, 3, 0) + tasks_of(job, 3, 1))


def test_newcomer_that_cannot_take_part_is_sent_away_and_the_job_goes_on() -> None:
    for failure in (UsageError("no module named x"), PeerLost("it is gone")):
        job = Job(group_plan(*GROUPS), 2)
        job.go_on(ev.StartTask, stage_id=0)
        (prepare,) = join(job, 2)
        job.waiting.remove(prepare)
        told = job.tell(ev.PrepareFailed(agent=2, failure=to_failure(failure)))
        assert told == [ev.EndJob(agent=2, keep_result=False)]
        assert job.tell(lost(2)) == []
        job.check()
        finish = job.told[-1]
        assert isinstance(finish, ev.Finish)
        assert not finish.finished.agents_lost and not finish.finished.agents_joined


def noting(folder: Path) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A function that says which agent runs it, and when, and takes its time until `folder` has the file "go on"."""
    linger = lingering(folder)

    def note(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows:
            with (folder / "notes" / f"{os.getpid()}").open("a") as file:
                file.write(f"{time.monotonic()}\n")
        return linger(batch)

    return note


@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGKILL])
def test_agent_started_anew_at_its_address_takes_part_in_the_job_that_it_had_before(
    tmp_path: Path, blow: signal.Signals
) -> None:
    table = pa.table({"k": [i * 7919 % 97 for i in range(ROWS)], "v": list(range(ROWS))})
    (tmp_path / "t").mkdir()
    (tmp_path / "notes").mkdir()
    for index in range(FILES):
        pq.write_table(table.slice(index * ROWS // FILES, ROWS // FILES), tmp_path / "t" / f"{index:03}.parquet")
    agents = Agents(tmp_path / "agents")
    try:
        first = agents.start("first", environment=CUT_SMALL)
        second = agents.start("second", "--join", first.control)
        until(lambda: len(first.members()) == 2)
        with sabot.connect(first.control, progress=False) as session:
            data = session.read_parquet(str(tmp_path / "t"))
            data = data.map_batches(noting(tmp_path), schema=data.schema, processes=False)
            job = data.group_by("k").aggregate([("v", "sum")]).submit(timeout_s=120)
            until(lambda: len(list((tmp_path / "notes").iterdir())) == 2)
            second.signal(blow)
            second.wait()
            again = agents.start("second", "--join", first.control, ports=second.ports())
            until((tmp_path / "notes" / str(again.process.pid)).exists)
            (tmp_path / "go on").touch()
            with job.result() as result:
                expected = table.group_by("k").aggregate([("v", "sum")]).sort_by("k")
                assert result.to_table().sort_by("k").select(expected.column_names).equals(expected)
                assert result.receipt.exact and result.stats.agents_joined == ("second",)
                assert result.stats.agents_lost == (() if blow is signal.SIGTERM else ("second",))
                redone = sum(stage.tasks_redone for stage in result.stats.stages)
                assert redone == 0 if blow is signal.SIGTERM else redone > 0
    finally:
        agents.close()


def seconds_to_work(agents: Agents, first: AgentProcess, agent_id: str, notes: Path) -> float:
    """From when an agent has joined to its first task."""
    late = agents.start(agent_id, "--join", first.control)
    joined_s = time.monotonic()
    until(lambda: (notes / str(late.process.pid)).exists() and bool(noted(notes, late)))
    return float(noted(notes, late)[0]) - joined_s


def noted(notes: Path, agent: AgentProcess) -> list[str]:
    return (notes / str(agent.process.pid)).read_text().split()


def test_agent_that_joins_while_a_job_runs_gets_work_within_a_second(tmp_path: Path) -> None:
    table = pa.table({"k": [i * 7919 % 97 for i in range(ROWS)], "v": list(range(ROWS))})
    (tmp_path / "t").mkdir()
    (tmp_path / "notes").mkdir()
    for index in range(FILES):
        pq.write_table(table.slice(index * ROWS // FILES, ROWS // FILES), tmp_path / "t" / f"{index:02}.parquet")
    agents = Agents(tmp_path / "agents")
    try:
        first = agents.start("first", environment=CUT_SMALL)
        with sabot.connect(first.control, progress=False) as session:
            data = session.read_parquet(str(tmp_path / "t"))
            data = data.map_batches(noting(tmp_path), schema=data.schema, processes=False)
            job = data.group_by("k").aggregate([("v", "sum")]).submit(timeout_s=120)
            until(lambda: any((tmp_path / "notes").iterdir()))
            late = ["late"]
            took_s = [seconds_to_work(agents, first, "late", tmp_path / "notes")]
            if took_s[0] >= GETS_WORK_S:  # a neighbour that takes the cores for a second does so once
                late += ["late-1", "late-2"]
                took_s += [seconds_to_work(agents, first, agent_id, tmp_path / "notes") for agent_id in late[1:]]
            assert statistics.median(took_s) < GETS_WORK_S, took_s
            (tmp_path / "go on").touch()
            with job.result() as result:
                expected = table.group_by("k").aggregate([("v", "sum")]).sort_by("k")
                assert result.to_table().sort_by("k").select(expected.column_names).equals(expected)
                assert result.receipt.exact and set(result.stats.agents_joined) == set(late)
                assert not result.stats.agents_lost
                assert all(stage.tasks_redone == 0 for stage in result.stats.stages)
    finally:
        agents.close()
