"""An agent that drains gets nothing more to do; what it holds is read by others, and nothing is done again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import sabot
from sabot.agent import job_events as ev
from sabot.dataflow.stage import PartitionSplit
from tests.agent.processes import Agents

from .held_job import until
from .job_world import group_plan, join_plan
from .test_coordinator_recovery import Job

GROUPS = (5, 6, 7, 8, 9, 10, 11, 12)
ROWS = 21_000
FILES = 60


def drain(job: Job, agent: int) -> list[ev.Command]:
    return job.tell(ev.AgentDraining(agent=agent))


def given_to(agent: int, commands: list[ev.Command]) -> list[ev.StartTask]:
    return [command for command in commands if isinstance(command, ev.StartTask) and command.agent == agent]


def check_nothing_was_done_again(job: Job) -> None:
    job.check()
    finish = job.told[-1]
    assert isinstance(finish, ev.Finish) and not finish.finished.agents_lost
    assert all(stage.tasks_redone == 0 for stage in finish.finished.stages)
    assert not any(isinstance(command, ev.CancelTask | ev.Reown) for command in job.told)


def test_draining_agent_gets_no_new_task_and_its_partitions_are_pulled_by_the_others() -> None:
    job = Job(group_plan(*GROUPS), 3)
    job.go_on(ev.StartTask, stage_id=0, count=3)
    before = len(job.told)
    drain(job, 1)
    check_nothing_was_done_again(job)
    assert not given_to(1, job.told[before:])
    readers = {one.split.partition: one for one in job.started(1) if isinstance(one.split, PartitionSplit)}
    table = job.agents.tables[0]
    for partition, command in readers.items():
        pulled = command.split.share is not None
        assert pulled == (table.owners[partition] == 1) and command.agent != 1


def test_agent_that_drains_while_its_partitions_are_read_ends_what_it_has_begun() -> None:
    job = Job(group_plan(*GROUPS), 2)
    job.go_on(ev.StartTask, stage_id=1)
    drain(job, 1)
    check_nothing_was_done_again(job)


def test_piece_of_a_table_is_read_by_its_holder_though_it_drains() -> None:
    job = Job(join_plan(*GROUPS, uploads=(1, 1)), 3)
    drain(job, 1)
    check_nothing_was_done_again(job)
    assert {command.agent for command in job.started(1)} == {1}
    assert not given_to(1, [command for command in job.told if command not in job.started(1)])


def test_job_goes_on_where_all_its_agents_drain() -> None:
    job = Job(group_plan(*GROUPS), 2)
    job.go_on(ev.StartTask, stage_id=0)
    drain(job, 0)
    drain(job, 1)
    check_nothing_was_done_again(job)


def holding(folder: Path) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A function that takes its time, until `folder` has the file "go on"."""

    def hold(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows and not (folder / "go on").exists():
            threading.Event().wait(0.1)
        return batch

    return hold


def test_agent_told_to_stop_in_the_middle_of_a_job_exits_with_0_and_nothing_is_done_again(tmp_path: Path) -> None:
    table = pa.table({"k": [i * 7919 % 97 for i in range(ROWS)], "v": list(range(ROWS))})
    (tmp_path / "t").mkdir()
    for index in range(FILES):
        pq.write_table(table.slice(index * ROWS // FILES, ROWS // FILES), tmp_path / "t" / f"{index:02}.parquet")
    agents = Agents(tmp_path / "agents")
    try:
        first = agents.start("first", environment={"SABOT_JOBS_SPLIT_BYTES": "1024"})
        leaver = agents.start("leaver", "--join", first.control)
        until(lambda: len(first.members()) == 2)
        with sabot.connect(first.control, progress=False) as session:
            data = session.read_parquet(str(tmp_path / "t"))
            data = data.map_batches(holding(tmp_path), schema=data.schema, processes=False)
            job = data.group_by("k").aggregate([("v", "sum")]).submit(timeout_s=60)
            until(lambda: any(stage.tasks_done > 4 for stage in job.progress.stages))
            leaver.signal(signal.SIGTERM)
            until(lambda: any(member.draining for member in first.members()))
            (tmp_path / "go on").touch()
            with job.result() as result:
                expected = table.group_by("k").aggregate([("v", "sum")]).sort_by("k")
                assert result.to_table().sort_by("k").select(expected.column_names).equals(expected)
                assert result.receipt.exact and not result.stats.agents_lost
                assert all(stage.tasks_redone == 0 for stage in result.stats.stages)
            assert leaver.wait() == 0
    finally:
        agents.close()
