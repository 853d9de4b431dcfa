"""A job that was submitted goes on by itself; whoever holds it takes its result or ends it, and nothing is left."""

from __future__ import annotations

import gc
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from click.testing import CliRunner

from sabot import LocalCluster
from sabot.cli.agent_call import call_agent
from sabot.cli.main import cli
from sabot.client.agent_process import LocalAgent
from sabot.client.session import Session
from sabot.dataflow.session_protocol import JobProtocol
from sabot.errors import JobCancelled, LimitReached, UsageError
from sabot.wire.agent_pb2 import StatusRequest

from .held_job import until

TABLE = pa.table({"v": pa.array(range(10_000), pa.int64()), "k": pa.array([i % 97 for i in range(10_000)], pa.int64())})
WAIT_S = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two agents whose workers are there, so that what is left of a job can be counted."""
    with LocalCluster(agents=2, slots=2) as running:
        yield running


@pytest.fixture
def session(cluster: LocalCluster) -> Iterator[Session]:
    with cluster.connect(progress=False) as connected:
        yield connected


def workers(agent: LocalAgent) -> list[int]:
    """The processes that the agent's nursery has forked."""
    return [
        worker.pid for nursery in psutil.Process(agent.pid).children() for worker in nursery.children(recursive=True)
    ]


def left_of_jobs(cluster: LocalCluster) -> list[tuple[int, ...]]:
    """What each agent has of jobs: jobs, tasks, bytes kept, workers."""
    left = []
    for agent in cluster.agents:
        status = call_agent(agent.address, "GetStatus", StatusRequest(), timeout_s=WAIT_S)
        left.append((status.jobs_running, status.tasks_running, status.stored_bytes, len(workers(agent))))
    return left


def holding(folder: Path) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A function that says by a file that it runs, and never ends."""

    def hold(batch: pa.RecordBatch) -> pa.RecordBatch:
        (folder / f"held by {os.getpid()}").touch()
        while True:
            threading.Event().wait(1)

    return hold


def submit_held(session: Session, folder: Path, **arguments: Any) -> JobProtocol:
    """A job whose readers hang in its workers, with rows in the shuffle before them."""
    data = session.from_table(TABLE).repartition("k")
    job = data.map_batches(holding(folder), schema=TABLE.schema).submit(**arguments)
    until(lambda: job.done() or len(list(folder.glob("held by *"))) == 4, deadline_s=WAIT_S)
    return job


def test_result_of_a_submitted_job_is_that_of_run(session: Session) -> None:
    job = session.from_table(TABLE).group_by("k").aggregate([("v", "sum")]).submit()
    with job.result(WAIT_S) as result:
        assert job.done() and result.receipt.job_id == job.job_id
        assert result.to_table().sort_by("k")["v_sum"].to_pylist()[0] == sum(range(0, 10_000, 97))
    assert [stage.tasks_done == stage.tasks_total for stage in job.progress.stages] == [True, True]
    job.cancel()
    assert job.result(0).receipt.job_id == job.job_id, "a job that has ended stays as it ended"


def test_failure_of_a_submitted_job_is_raised_by_its_result(session: Session) -> None:
    def explode(batch: pa.RecordBatch) -> pa.RecordBatch:
        raise ZeroDivisionError("seven")

    job = session.from_table(TABLE).map_batches(explode, schema=TABLE.schema).submit()
    with pytest.raises(ZeroDivisionError, match="seven"):
        job.result(WAIT_S)


@pytest.mark.parametrize("how", ["cancel", "drop", "command", "timeout", "session"])
def test_job_that_is_ended_in_any_way_leaves_nothing_on_any_agent(
    cluster: LocalCluster, session: Session, tmp_path: Path, how: str
) -> None:
    nothing = [(0, 0, 0, 0)] * 2
    until(lambda: left_of_jobs(cluster) == nothing, deadline_s=WAIT_S)  # of the test before
    job = submit_held(session, tmp_path, timeout_s=5 if how == "timeout" else None)
    if how != "timeout":  # which may have come before
        assert all(jobs == 1 and tasks and kept and forked for jobs, tasks, kept, forked in left_of_jobs(cluster))
        with pytest.raises(TimeoutError):
            job.result(0.01)
    error: type[Exception] | None = JobCancelled
    match how:
        case "cancel":
            job.cancel()
        case "command":
            done = CliRunner().invoke(cli, ["cancel", job.job_id[:12], "--agent", cluster.agents[1].address])
            assert (done.exit_code, done.stdout) == (0, f"job {job.job_id} was cancelled\n"), done.output
        case "timeout":
            error = LimitReached
        case "session":
            session.close()
        case "drop":
            error = None
    if error is not None:
        with pytest.raises(error, match=job.job_id):
            job.result(WAIT_S)
    del job
    gc.collect()
    until(lambda: left_of_jobs(cluster) == nothing, deadline_s=WAIT_S)


def test_jobs_of_the_cluster_are_listed_whoever_coordinates_them(
    cluster: LocalCluster, session: Session, tmp_path: Path
) -> None:
    job = submit_held(session, tmp_path)
    listed = CliRunner().invoke(cli, ["jobs", "--json", "--agent", cluster.agents[1].address])
    (row,) = json.loads(listed.stdout)
    assert (row["job_id"], row["state"], row["coordinator"], row["weight"]) == (job.job_id, "running", "local-0", 1.0)
    assert (row["stages_done"], row["stages_total"]) == (1, 2) and row["tasks_done"] < row["tasks_total"]
    assert row["elapsed_s"] > 0
    table = CliRunner().invoke(cli, ["jobs", "--agent", cluster.agents[0].address]).stdout
    assert job.job_id in table and "1/2" in table
    job.cancel()


def test_cancel_of_a_job_that_is_not_there_is_the_users_fault(cluster: LocalCluster) -> None:
    done = CliRunner().invoke(cli, ["cancel", "abc", "--agent", cluster.agents[0].address])
    assert done.exit_code == 2 and "no agent that answers has a job abc" in done.stderr


@pytest.mark.parametrize("timeout_s", [0, -1, "1", True, float("nan"), float("inf")])
def test_timeout_that_is_no_time_is_refused_before_anything_runs(session: Session, timeout_s: Any) -> None:
    with pytest.raises(UsageError, match="timeout_s"):
        session.from_table(TABLE).run(timeout_s=timeout_s)


def test_sessions_timeout_holds_where_a_job_has_none(cluster: LocalCluster, tmp_path: Path) -> None:
    with cluster.connect(progress=False, job_timeout_s=0.2) as session:
        held = session.from_table(TABLE).map_batches(holding(tmp_path), schema=TABLE.schema)
        with pytest.raises(LimitReached, match=r"timeout_s=0\.2"):
            held.run()
        assert session.from_table(TABLE).run(timeout_s=WAIT_S).num_rows == TABLE.num_rows


def test_thirty_two_jobs_at_once_give_their_answers(cluster: LocalCluster) -> None:
    with cluster.connect(1, progress=False) as session:
        expected = TABLE.group_by("k").aggregate([("v", "sum")]).sort_by("k")
        jobs = [
            session.from_table(TABLE).group_by("k").aggregate([("v", "sum")]).submit(timeout_s=WAIT_S)
            for _ in range(32)
        ]
        for job in jobs:
            with job.result() as result:
                assert result.to_table().sort_by("k").select(expected.column_names).equals(expected)
    until(lambda: left_of_jobs(cluster) == [(0, 0, 0, 0)] * 2, deadline_s=WAIT_S)
