"""Real agents killed or frozen in mid-job: the job ends with the exact answer, and nobody keeps anything of it."""

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
from sabot.errors import JobCancelled, PeerLost

from .rows import in_order, make_table, write_files

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


def until(fact: Callable[[], bool], *, deadline_s: float = 60.0) -> None:
    end_s = time.monotonic() + deadline_s
    while not fact():
        assert time.monotonic() < end_s, "it does not come true"
        threading.Event().wait(0.01)


def is_free(agent: LocalAgent) -> bool:
    with closing(ControlClient(agent.address, timeout_s=5)) as control:
        status = control.get_status()
    return (status.jobs_running, status.tasks_running, status.stored_bytes) == (0, 0, 0)


COORDINATOR, OTHER = 0, 1


@pytest.mark.parametrize("victim", [COORDINATOR, OTHER], ids=["coordinator", "other"])
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_agent_killed_or_frozen_in_mid_job_costs_its_work_and_not_the_job(
    blow: signal.Signals, victim: int, tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    with sabot.LocalCluster(agents=3, slots=1) as cluster:
        job = Running(cluster, tmp_path, threads)
        os.kill(cluster.agents[victim].pid, blow)
        job.go_on()
        assert in_order(job.answer.result(NOTICED_S)) == in_order(make_table(8000))
        job.session.close()
        left = [agent for index, agent in enumerate(cluster.agents) if index != victim]
        until(lambda: all(is_free(agent) for agent in left))


@pytest.mark.parametrize("victim", [COORDINATOR, OTHER], ids=["coordinator", "other"])
def test_frozen_agent_that_thaws_drops_what_it_had_of_the_job(
    victim: int, tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SABOT_JOBS_TAKEOVER_S", "5")
    with sabot.LocalCluster(agents=2, slots=1) as cluster:
        job = Running(cluster, tmp_path, threads)
        os.kill(cluster.agents[victim].pid, signal.SIGSTOP)
        job.go_on()
        assert in_order(job.answer.result(NOTICED_S)) == in_order(make_table(8000))
        os.kill(cluster.agents[victim].pid, signal.SIGCONT)
        until(lambda: is_free(cluster.agents[victim]))


def test_agent_killed_in_mid_shuffle_leaves_the_answer_that_duckdb_gives(tmp_path: Path) -> None:
    """One agent of three dies when a part of the shuffle is there: groups and a join are exact all the same."""
    duckdb = pytest.importorskip("duckdb")
    rows = 200_000
    lines = pa.table({"k": [i * 7919 % 5003 for i in range(rows)], "v": list(range(rows))})
    words = pa.table({"k": list(range(0, 5003, 2)), "w": [f"word {i}" for i in range(0, 5003, 2)]})
    folder = write_files(tmp_path / "lines", lines, files=12, row_group_rows=5_000)
    small = write_files(tmp_path / "words", words)
    gate = tmp_path / "gate"
    gate.mkdir()
    go_on = tmp_path / "go on"

    def some_and_no_more(batch: pa.RecordBatch) -> pa.RecordBatch:
        import threading

        (gate / f"{batch['v'][0].as_py() if batch.num_rows else 'none'}").touch()
        while len(list(gate.iterdir())) >= 12 and not go_on.exists() and gate.exists():
            threading.Event().wait(0.01)
        return batch

    with sabot.LocalCluster(agents=3, slots=1) as cluster, ThreadPoolExecutor(1) as pool:
        session = cluster.connect(progress=False, broadcast_bytes_max=0)
        big = session.read_parquet(folder).map_batches(some_and_no_more, schema=lines.schema, processes=False)
        joined = big.join(session.read_parquet(small), "k", join_type="inner")
        answer = pool.submit(joined.group_by("w").aggregate([("v", "sum"), ("v", "count")]).run)
        until(lambda: len(list(gate.iterdir())) >= 12)
        cluster.agents[2].kill()
        go_on.touch()
        result = answer.result(60)
        got = in_order(result.to_table().select(["w", "v_sum", "v_count"]))
        expected = duckdb.sql(
            "select w, sum(v)::bigint v_sum, count(v) v_count from lines join words using (k) group by w"
        ).arrow()
        assert got == in_order(pa.table(expected).cast(got.schema))
        assert result.receipt.exact and result.stats.agents_lost == ("local-2",)


def test_job_that_nobody_can_take_over_ends_as_a_lost_peer_in_time(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    with sabot.LocalCluster(agents=2, slots=1) as cluster:
        job = Running(cluster, tmp_path, threads)
        os.kill(cluster.agents[1].pid, signal.SIGSTOP)
        cluster.agents[0].kill()
        with pytest.raises(PeerLost, match=cluster.agents[0].address):
            job.answer.result(NOTICED_S)


def test_job_without_its_coordinator_and_client_is_dropped(
    tmp_path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SABOT_JOBS_TAKEOVER_S", "1")
    with sabot.LocalCluster(agents=2, slots=1) as cluster:
        job = Running(cluster, tmp_path, threads)
        os.kill(cluster.agents[0].pid, signal.SIGSTOP)
        job.session.close()
        with pytest.raises(JobCancelled):
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
