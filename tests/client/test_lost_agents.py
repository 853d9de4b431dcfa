"""Agents that die or hang while a job runs: the session says so by type, in time, and cancels what it can."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sabot import LocalCluster
from sabot.client.control import ControlClient
from sabot.client.result import Result
from sabot.client.session import Session
from sabot.dataflow.dataset import Dataset
from sabot.errors import PeerLost

WAIT_S = 30.0
TABLE = pa.table({"x": pa.array(range(1000), pa.int64())})


class Gate:
    """Named pipes at which the functions of a job stop until told to go; `wait_for_one` returns when one has come."""

    def __init__(self, folder: Path) -> None:
        self._came, self._go = folder / "came", folder / "go"
        os.mkfifo(self._came)
        os.mkfifo(self._go)
        # Open for both, so that neither side's open waits for the other.
        self._came_fd = os.open(self._came, os.O_RDWR)
        self._go_fd = os.open(self._go, os.O_RDWR)

    def function(self) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
        came, go = self._came, self._go

        def stop_at_gate(batch: pa.RecordBatch) -> pa.RecordBatch:
            if batch.num_rows:
                with came.open("wb", buffering=0) as out, go.open("rb", buffering=0) as into:
                    out.write(b"!")
                    into.read(1)
            return batch

        return stop_at_gate

    def wait_for_one(self) -> None:
        os.read(self._came_fd, 1)

    def open_wide(self) -> None:
        os.write(self._go_fd, b"!" * 64)

    def close(self) -> None:
        os.close(self._came_fd)
        os.close(self._go_fd)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.close()


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(agents=2, slots=1) as running:
        yield running


def run_until_at_gate(session: Session, gate: Gate, then: Callable[[], None], given: Dataset | None = None) -> pa.Table:
    """Runs a job whose functions stop at the gate; calls `then` from another thread when the first is there."""
    given = session.from_table(TABLE).map_batches(gate.function()) if given is None else given

    def at_gate() -> None:
        gate.wait_for_one()
        then()

    thread = threading.Thread(target=at_gate)
    thread.start()
    try:
        return given.to_table()
    finally:
        thread.join(WAIT_S)


def jobs_running(address: str) -> int:
    control = ControlClient(address, timeout_s=5)
    try:
        return control.get_status().jobs_running
    finally:
        control.close()


@pytest.mark.parametrize("victim", [0, 1], ids=["coordinator", "other"])
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_table_that_lay_on_a_lost_agent_is_uploaded_again(
    gate: Gate, blow: signal.Signals, victim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SABOT_JOBS_PEER_DEADLINE_S", "2")

    def strike() -> None:
        os.kill(cluster.agents[victim].pid, blow)
        gate.open_wide()

    with LocalCluster(agents=2, slots=1) as cluster, cluster.connect(progress=False) as session:
        answer = run_until_at_gate(session, gate, strike)
        assert sorted(answer["x"].to_pylist()) == TABLE["x"].to_pylist()
        assert session.agent.agent_id == f"local-{1 - victim}"
        assert session.from_table(TABLE).count_rows() == 1000


def test_batches_are_uploaded_again_whatever_they_came_from(cluster: LocalCluster, gate: Gate) -> None:
    def strike() -> None:
        cluster.agents[1].kill()
        gate.open_wide()

    with cluster.connect(progress=False) as session:
        used_up = iter(TABLE.to_batches(max_chunksize=100))
        given = session.from_batches(used_up).map_batches(gate.function())
        answer = run_until_at_gate(session, gate, strike, given)
        assert sorted(answer["x"].to_pylist()) == TABLE["x"].to_pylist()


@pytest.mark.parametrize("source", ["files", "table"])
def test_agent_frozen_before_it_has_the_job_costs_the_clusters_deadline_and_not_the_clients(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SABOT_JOBS_PEER_DEADLINE_S", "1")
    pq.write_table(TABLE, tmp_path / "table.parquet")
    with LocalCluster(agents=2, slots=1) as cluster, cluster.connect(progress=False, timeout_s=120) as session:
        given = session.read_parquet(tmp_path / "table.parquet") if source == "files" else session.from_table(TABLE)
        os.kill(cluster.agents[0].pid, signal.SIGSTOP)
        started_s = time.monotonic()
        assert given.repartition("x").run().to_table().num_rows == 1000
        assert time.monotonic() - started_s < 60
        assert session.agent.agent_id == "local-1"


@pytest.mark.parametrize("read", [Result.to_table, lambda result: list(result.to_batches())], ids=["table", "batches"])
def test_answer_on_an_agent_that_froze_is_lost_within_the_clusters_deadline(
    read: Callable[[Result], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SABOT_JOBS_PEER_DEADLINE_S", "1")
    with LocalCluster(agents=2, slots=1) as cluster, cluster.connect(progress=False) as session:
        result = session.from_table(TABLE).repartition("x").run()
        os.kill(cluster.agents[1].pid, signal.SIGSTOP)
        started_s = time.monotonic()
        with pytest.raises(PeerLost, match=r"partition \d+ of the result: agent .* has died or frozen, .* within 1 s"):
            read(result)
        assert time.monotonic() - started_s < 30, "a ping finds it, and not the fetch's deadline"


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_answer_that_is_lost_before_it_is_fetched_is_computed_again(
    blow: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SABOT_JOBS_PEER_DEADLINE_S", "1")
    fetched: list[str] = []

    def strike_and_fetch(result: Result, to_table: Callable[[Result], pa.Table] = Result.to_table) -> pa.Table:
        if not fetched:
            os.kill(cluster.agents[1].pid, blow)
        fetched.append(result.receipt.job_id)
        return to_table(result)

    monkeypatch.setattr(Result, "to_table", strike_and_fetch)
    with LocalCluster(agents=2, slots=1) as cluster, cluster.connect(progress=False) as session:
        answer = session.from_table(TABLE).repartition("x").to_table()
        assert sorted(answer["x"].to_pylist()) == TABLE["x"].to_pylist()
        assert len(set(fetched)) == 2


def test_columns_of_a_function_are_asked_of_another_agent_where_the_first_froze(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SABOT_JOBS_PEER_DEADLINE_S", "1")
    with LocalCluster(agents=2, slots=1) as cluster, cluster.connect(progress=False) as session:
        os.kill(cluster.agents[0].pid, signal.SIGSTOP)
        started_s = time.monotonic()
        assert session.from_table(TABLE).map_batches(lambda batch: batch).schema == TABLE.schema
        assert time.monotonic() - started_s < 30, "a ping finds it, and not the call's deadline"
        assert session.agent.agent_id == "local-1"


def test_session_asks_another_agent_when_its_own_is_dead(cluster: LocalCluster, tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "table.parquet")
    with cluster.connect(progress=False) as session:
        cluster.agents[0].kill()
        assert session.read_parquet(tmp_path / "table.parquet").repartition("x").count_rows() == 1000


def test_control_c_ends_the_job_on_the_agents(cluster: LocalCluster, gate: Gate) -> None:
    main = threading.get_ident()
    with cluster.connect(progress=False) as session:
        with pytest.raises(KeyboardInterrupt):
            run_until_at_gate(session, gate, lambda: signal.pthread_kill(main, signal.SIGINT))
        gate.open_wide()
        deadline = time.monotonic() + WAIT_S
        while any(jobs_running(agent.address) for agent in cluster.agents):
            assert time.monotonic() < deadline, "the job goes on"
        assert session.from_table(TABLE).count_rows() == 1000


def test_results_of_a_killed_agent_are_a_lost_peer(cluster: LocalCluster) -> None:
    with cluster.connect(progress=False) as session:
        with session.from_table(TABLE).repartition("x").run() as result:
            cluster.agents[1].kill()
            with pytest.raises(PeerLost, match=cluster.agents[1].flight_address):
                result.to_table()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_jobs_after_an_agent_is_gone_run_on_those_that_answer(
    cluster: LocalCluster, blow: signal.Signals, tmp_path: Path
) -> None:
    pq.write_table(TABLE, tmp_path / "table.parquet")
    with cluster.connect(progress=False) as session:
        os.kill(cluster.agents[1].pid, blow)
        assert session.from_table(TABLE).repartition("x").count_rows() == 1000
        assert session.read_parquet(tmp_path / "table.parquet").repartition("x").count_rows() == 1000
