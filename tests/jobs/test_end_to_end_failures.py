"""Real agents killed or frozen in mid-job: the job ends with the agent's name, and the others are free."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

import sabot
from sabot.client.agent_process import LocalAgent
from sabot.client.control import ControlClient
from sabot.dataflow.dataset import Dataset
from sabot.errors import PeerLost

from .rows import make_table, write_files

NOTICED_S = 10.0


def waits_for(file: Path, started: Path) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A function for map_batches that holds its slot until `file` is there; it says which agent it runs in."""

    def held_up(batch: pa.RecordBatch) -> pa.RecordBatch:
        import os
        import threading

        (started / str(os.getpid())).touch()
        while not file.exists() and file.parent.exists():
            threading.Event().wait(0.01)
        return batch

    return held_up


class Running:
    """A job in which both agents hold a task until `go_on`."""

    def __init__(self, cluster: sabot.LocalCluster, folder: Path, threads: ThreadPoolExecutor) -> None:
        self.cluster = cluster
        self._gate = folder / "go on"
        started = folder / "started"
        started.mkdir()
        self.session = cluster.connect(progress=False)
        self.data = self.session.read_parquet(write_files(folder / "t", make_table(8000)))
        held = self.data.map_batches(waits_for(self._gate, started), schema=self.data.schema).repartition("k")
        self.answer: Future[pa.Table] = threads.submit(held.to_table)
        until(lambda: len(list(started.iterdir())) == len(cluster.agents))

    def go_on(self) -> None:
        self._gate.touch()


@pytest.fixture(autouse=True)
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the agents that a test starts."""
    monkeypatch.setenv("SABOT_JOBS_PEER_DEADLINE_S", "2")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def until(fact: Callable[[], bool], *, deadline_s: float = 30.0) -> None:
    end_s = time.monotonic() + deadline_s
    while not fact():
        assert time.monotonic() < end_s, "it does not come true"
        threading.Event().wait(0.01)


def is_free(agent: LocalAgent) -> bool:
    with closing(ControlClient(agent.address, timeout_s=5)) as control:
        status = control.get_status()
    return (status.jobs_running, status.tasks_running, status.stored_bytes) == (0, 0, 0)


def test_agent_killed_in_mid_job_is_named_and_the_other_is_free(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    with sabot.LocalCluster(agents=2, slots=1) as cluster:
        job = Running(cluster, tmp_path, threads)
        cluster.agents[1].kill()
        with pytest.raises(PeerLost) as caught:
            job.answer.result(NOTICED_S)
        assert caught.value.facts["agent"] == "local-1" and "local-1" in str(caught.value)
        job.go_on()
        until(lambda: is_free(cluster.agents[0]))


def test_frozen_agent_is_named_within_its_deadline_and_the_other_is_free(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    with sabot.LocalCluster(agents=2, slots=1) as cluster:
        job = Running(cluster, tmp_path, threads)
        os.kill(cluster.agents[1].pid, signal.SIGSTOP)
        with pytest.raises(PeerLost) as caught:
            job.answer.result(NOTICED_S)
        assert caught.value.facts["agent"] == "local-1"
        job.go_on()
        until(lambda: is_free(cluster.agents[0]))


def test_coordinator_killed_ends_the_job_for_client_and_agents(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    with sabot.LocalCluster(agents=2, slots=1) as cluster:
        job = Running(cluster, tmp_path, threads)
        cluster.agents[0].kill()
        with pytest.raises(PeerLost):
            job.answer.result(NOTICED_S)
        job.go_on()
        until(lambda: is_free(cluster.agents[1]))


def test_cluster_works_on_after_a_failed_job(tmp_path: Path) -> None:
    def explodes(batch: pa.RecordBatch) -> pa.RecordBatch:
        raise LookupError(f"{batch.num_rows > 0}")

    with sabot.LocalCluster(agents=2, slots=1) as cluster:
        data: Dataset = cluster.connect(progress=False).read_parquet(write_files(tmp_path / "t", make_table(8000)))
        for _ in range(2):
            with pytest.raises(LookupError):
                data.map_batches(explodes, schema=data.schema).to_table()
            assert data.repartition("k").count_rows() == 8000
