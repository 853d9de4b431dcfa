"""What goes wrong in a job ends it with its own type and names, and leaves nothing on any agent."""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import grpc
import pyarrow as pa
import pyarrow.csv
import pytest

from sabot.client.session import Session
from sabot.dataflow.dataset import Dataset
from sabot.dataflow.planner import plan_job
from sabot.errors import JobCancelled, PeerRefused, SabotError, ShuffleIntegrityError, UsageError
from sabot.wire.addresses import control_channel_options
from sabot.wire.agent_pb2 import (
    ConfirmJobRequest,
    EndJobRequest,
    JobEvent,
    PrepareJobRequest,
    ReleaseJobRequest,
    RunTaskRequest,
    SubmitJobRequest,
)
from sabot.wire.agent_pb2_grpc import AgentControlStub
from sabot.wire.convert import to_agent
from sabot.wire.failure import from_failure
from sabot.wire.versions import my_versions

from .failing_functions import exits, explodes
from .in_process import InProcessCluster
from .rows import make_table, write_files

# Functions of jobs run in this process, so that tests can hold them up and see them.
STARTED = threading.Event()
GO_ON = threading.Event()


@pytest.fixture(autouse=True)
def gates() -> None:
    STARTED.clear()
    GO_ON.clear()


def held_up(batch: pa.RecordBatch) -> pa.RecordBatch:
    STARTED.set()
    GO_ON.wait(20)
    return batch


def files(cluster: InProcessCluster, tmp_path: Path, session: Session | None = None) -> Dataset:
    return (session or cluster.connect()).read_parquet(write_files(tmp_path / "t", make_table(4000)))


def test_exception_of_users_function_arrives_as_itself_with_its_place(
    cluster: InProcessCluster, tmp_path: Path
) -> None:
    data = files(cluster, tmp_path).map_batches(explodes).repartition("k")
    with pytest.raises(ZeroDivisionError, match="seven") as caught:
        data.to_table()
    notes = "\n".join(caught.value.__notes__)
    for fact in ("agent=agent-", "stage=0", "task=", "morsel=", "in explodes"):
        assert fact in notes


def test_exit_in_users_function_ends_the_job_and_no_process(cluster: InProcessCluster, tmp_path: Path) -> None:
    with pytest.raises(SabotError, match="SystemExit"):
        files(cluster, tmp_path).map_batches(exits).to_table()


def test_job_after_a_failed_one_succeeds(cluster: InProcessCluster, tmp_path: Path) -> None:
    data = files(cluster, tmp_path)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            data.map_batches(explodes).to_table()
        assert data.repartition("k").count_rows() == 4000


def test_file_changed_after_it_was_listed_is_refused(cluster: InProcessCluster, tmp_path: Path) -> None:
    data = files(cluster, tmp_path)
    os.utime(tmp_path / "t" / "2.parquet", ns=(0, 0))
    with pytest.raises(UsageError, match=r"t/2.parquet has changed since .* seen by agent agent-\d"):
        data.to_table()


def test_file_that_an_agent_does_not_see_names_agent_and_path(cluster: InProcessCluster, tmp_path: Path) -> None:
    data = files(cluster, tmp_path)
    (tmp_path / "t" / "3.parquet").unlink()
    with pytest.raises(UsageError, match=r"agent agent-\d does not see .*t/3.parquet") as caught:
        data.to_table()
    assert caught.value.facts["path"] == str(tmp_path / "t" / "3.parquet")


def test_csv_that_turns_out_otherwise_names_file_and_value(cluster: InProcessCluster, tmp_path: Path) -> None:
    long = "a\n" + "1\n" * 600_000 + "seven\n"
    (tmp_path / "x.csv").write_text(long)
    data = cluster.connect().read_csv(str(tmp_path / "x.csv"))
    with pytest.raises(UsageError, match=r"x.csv as csv.*seven"):
        data.to_table()


def test_failed_write_leaves_the_folder_as_it_was(cluster: InProcessCluster, tmp_path: Path) -> None:
    data = files(cluster, tmp_path)
    with pytest.raises(ZeroDivisionError):
        data.repartition("k").map_batches(explodes).write_dataset(str(tmp_path / "a" / "out"))
    cluster.wait_until(lambda: not (tmp_path / "a").exists())
    data.write_dataset(str(tmp_path / "out"))
    with pytest.raises(UsageError, match="not empty"):
        data.write_dataset(str(tmp_path / "out"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A job running; its stream is closed by whoever reads its end, or by `close`."""

    job_id: str
    call: Any
    channel: grpc.Channel

    def last_event(self) -> JobEvent:
        """How it ended, which is confirmed: the job lets go of what it has."""
        with self.channel:
            last = next(event for event in self.call if event.WhichOneof("event") in {"finished", "failed"})
            if last.WhichOneof("event") == "finished":
                AgentControlStub(self.channel).ConfirmJob(ConfirmJobRequest(job_id=self.job_id))
            return last

    def close(self) -> None:
        self.call.cancel()
        self.channel.close()


def submit(cluster: InProcessCluster, data: Dataset) -> Submitted:
    job_id = uuid.uuid4().hex
    packed = cloudpickle.dumps(plan_job(data._node, job_id=job_id))
    request = SubmitJobRequest(job_id=job_id, plan=packed, versions=my_versions())
    channel = grpc.insecure_channel(cluster.agents[0].member.control_address, options=control_channel_options())
    return Submitted(job_id=job_id, call=AgentControlStub(channel).SubmitJob(request), channel=channel)


def everyone_holds_nothing_but_what_slots_run(cluster: InProcessCluster) -> bool:
    return all(agent.driver.jobs_running() == 0 and agent.held()[2] == 0 for agent in cluster.agents)


def test_client_that_goes_away_cancels_the_job_everywhere(tmp_path: Path) -> None:
    with InProcessCluster(2, slots=1, **{"jobs.takeover_s": 1}) as cluster:
        data = files(cluster, tmp_path).repartition("v")
        job = submit(cluster, data.map_batches(held_up, schema=data.schema, processes=False))
        assert STARTED.wait(20)
        job.close()
        cluster.wait_until(lambda: everyone_holds_nothing_but_what_slots_run(cluster))
        GO_ON.set()
        cluster.check_nothing_held()


def test_release_of_a_running_job_cancels_it(cluster: InProcessCluster, tmp_path: Path) -> None:
    data = files(cluster, tmp_path).map_batches(held_up, schema=make_table(0).schema, processes=False)
    job = submit(cluster, data)
    assert STARTED.wait(20)
    cluster.on_loop(cluster.agents[0].driver.release(ReleaseJobRequest(job_id=job.job_id)))
    assert isinstance(from_failure(job.last_event().failed), JobCancelled)
    GO_ON.set()


def test_draining_agent_has_its_part_in_the_job_until_its_result_is_let_go_of(
    cluster: InProcessCluster, tmp_path: Path
) -> None:
    data = files(cluster, tmp_path)
    job = submit(cluster, data.map_batches(held_up, schema=data.schema, processes=False))
    assert STARTED.wait(20)
    other = cluster.agents[1].driver
    cluster.wait_until(lambda: other.tasks_running() == 2)  # all that it will be given

    async def drain() -> asyncio.Task[None]:
        return asyncio.create_task(other.drain(60))

    async def ended(draining: asyncio.Task[None]) -> bool:
        await asyncio.wait([draining], timeout=0.2)
        return draining.done()

    draining = cluster.on_loop(drain())
    assert not cluster.on_loop(ended(draining))
    GO_ON.set()
    finished = job.last_event().finished
    assert not finished.agents_lost and all(stage.tasks_redone == 0 for stage in finished.stages)
    assert not cluster.on_loop(ended(draining)), "it has a part of the result"
    cluster.on_loop(cluster.agents[0].driver.release(ReleaseJobRequest(job_id=job.job_id)))
    cluster.wait_until(draining.done)
    another = submit(cluster, data)
    assert list(another.last_event().finished.agents_lost) == ["agent-1"], "the other does its part"
    cluster.on_loop(cluster.agents[0].driver.release(ReleaseJobRequest(job_id=another.job_id)))


def test_tasks_of_an_agent_gone_in_mid_job_are_done_by_the_other(cluster: InProcessCluster, tmp_path: Path) -> None:
    data = files(cluster, tmp_path)
    job = submit(cluster, data.map_batches(held_up, schema=data.schema, processes=False))
    assert STARTED.wait(20)
    gone = cluster.agents.pop(1)
    cluster.wait_until(lambda: gone.driver.tasks_running() > 0)
    cluster.on_loop(gone.control.stop(None))
    GO_ON.set()
    finished = job.last_event().finished
    cluster.on_loop(gone.stack.aclose())
    assert sum(part.rows for part in finished.partitions) == 4000
    assert list(finished.agents_lost) == ["agent-1"] and finished.stages[0].tasks_redone > 0
    cluster.on_loop(cluster.agents[0].driver.release(ReleaseJobRequest(job_id=job.job_id)))


def test_agent_whose_native_port_is_silent_is_lost_though_its_control_port_answers(tmp_path: Path) -> None:
    with InProcessCluster(2, slots=1, **{"jobs.peer_deadline_s": 0.5}) as cluster:
        data = files(cluster, tmp_path)
        job = submit(cluster, data.map_batches(held_up, schema=data.schema, processes=False))
        assert STARTED.wait(20)
        other = cluster.agents[1]
        other.transport.close()
        cluster.wait_until(lambda: other.driver.jobs_running() == 0)  # it is told, and drops the job
        GO_ON.set()
        finished = job.last_event().finished
        assert list(finished.agents_lost) == ["agent-1"]
        assert {part.agent_id for part in finished.partitions} == {"agent-0"}


def test_agent_that_misses_its_coordinator_frees_the_job(tmp_path: Path) -> None:
    with InProcessCluster(2, slots=1, **{"jobs.peer_deadline_s": 0.5, "jobs.takeover_s": 1}) as cluster:
        data = files(cluster, tmp_path)
        job = submit(cluster, data.map_batches(held_up, schema=data.schema, processes=False))
        assert STARTED.wait(20)
        coordinator, other = cluster.agents
        cluster.on_loop(coordinator.control.stop(None))
        with pytest.raises(grpc.RpcError):
            job.last_event()
        coordinator.transport.close()
        cluster.wait_until(lambda: other.driver.jobs_running() == 0)
        GO_ON.set()
        cluster.wait_until(lambda: other.held() == (0, 0, 0))


def prepare_request(cluster: InProcessCluster, data: Dataset, job_id: str) -> PrepareJobRequest:
    return PrepareJobRequest(
        job_id=job_id,
        plan=cloudpickle.dumps(plan_job(data._node, job_id=job_id)),
        agents=[to_agent(agent.member) for agent in cluster.agents],
        coordinator=to_agent(cluster.agents[0].member),
    )


def test_command_after_the_end_makes_nothing_anew(cluster: InProcessCluster, tmp_path: Path) -> None:
    request = prepare_request(cluster, files(cluster, tmp_path), "f0" * 16)
    driver = cluster.agents[1].driver
    cluster.on_loop(driver.end_job(EndJobRequest(job_id="f0" * 16)))
    with pytest.raises(JobCancelled):
        cluster.on_loop(driver.prepare(request))
    with pytest.raises(JobCancelled):
        cluster.on_loop(driver.run_task(RunTaskRequest(job_id="f0" * 16)))


def test_task_of_a_job_that_was_never_prepared_is_refused(cluster: InProcessCluster) -> None:
    with pytest.raises(PeerRefused, match="agent-1 knows no job"):
        cluster.on_loop(cluster.agents[1].driver.run_task(RunTaskRequest(job_id="f1" * 16)))


def test_job_id_is_used_once_at_a_time(cluster: InProcessCluster, tmp_path: Path) -> None:
    data = files(cluster, tmp_path).map_batches(held_up, schema=make_table(0).schema, processes=False)
    job = submit(cluster, data)
    assert STARTED.wait(20)
    again = SubmitJobRequest(
        job_id=job.job_id, plan=cloudpickle.dumps(plan_job(data._node, job_id=job.job_id)), versions=my_versions()
    )
    with pytest.raises(UsageError, match="runs already"):
        cluster.on_loop(anext(cluster.agents[0].driver.submit(again)))
    GO_ON.set()
    end = job.last_event()
    assert end.WhichOneof("event") == "finished", end
    cluster.on_loop(cluster.agents[0].driver.release(ReleaseJobRequest(job_id=job.job_id)))


def test_plan_whose_functions_cannot_be_loaded_names_the_agent(cluster: InProcessCluster) -> None:
    request = SubmitJobRequest(job_id="f2" * 16, plan=b"cno_such_module\nf\n.", versions=my_versions())
    with pytest.raises(UsageError, match=r"agent agent-0 cannot load .*no_such_module"):
        cluster.on_loop(anext(cluster.agents[0].driver.submit(request)))


def test_rows_lost_on_the_way_are_found(
    cluster: InProcessCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reader's audit switched off by giving it fewer attempts than there are, the receipts still tell."""
    transport = cluster.agents[1].transport
    whole = transport.read_partition
    monkeypatch.setattr(
        transport, "read_partition", lambda *args, attempts, **rest: whole(*args, attempts=attempts[1:], **rest)
    )
    with pytest.raises(ShuffleIntegrityError) as caught:
        files(cluster, tmp_path).repartition("k").to_table()
    assert caught.value.facts["agent"] == "agent-1" and caught.value.facts["shuffle"].endswith("/0")
