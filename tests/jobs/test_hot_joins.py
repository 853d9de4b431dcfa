"""One key with half of the rows: all agents join its partition, and the answer is what pyarrow and DuckDB say."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import sabot
from sabot.agent.tasks.task_runner import Task, TaskRunner
from sabot.client.session import Session
from sabot.dataflow.dataset import Dataset
from sabot.dataflow.stage import PartitionSplit
from sabot.errors import PeerLost, ShuffleIntegrityError
from sabot.shuffle.client import ShuffleClient
from sabot.wire.agent_pb2 import RunTaskReply

from .in_process import InProcessCluster
from .rows import in_order, write_files
from .test_end_to_end_failures import until, waits_for

ROWS = 200_000
KEYS = 10_000
HOT_KEY = 7
LEFT = pa.table(
    {
        "k": pa.array([HOT_KEY if row % 2 else row * 7919 % KEYS for row in range(ROWS)], pa.int64()),
        "v": pa.array(range(ROWS), pa.int64()),
    }
)
RIGHT = pa.table({"k": pa.array(range(0, KEYS, 2), pa.int64()), "w": pa.array(range(KEYS // 2), pa.int64())})
RIGHT = pa.concat_tables([RIGHT, pa.table({"k": pa.array([HOT_KEY], pa.int64()), "w": pa.array([-1], pa.int64())})])


class Reads:
    """How many rows tasks that join were given, by agent, and who had shares of which partition."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.rows: Counter[str] = Counter()
        self.shares: dict[int, set[str]] = {}
        run = TaskRunner.run

        def watched(runner: TaskRunner, task: Task) -> RunTaskReply:
            agent_id = runner._agent_id
            if not isinstance(task.split, PartitionSplit) or len(task.inputs) < 2:
                return run(runner, task)
            reply = run(runner, task)
            self.rows[agent_id] += reply.rows_in
            if task.split.share is not None:
                self.shares.setdefault(task.split.partition, set()).add(agent_id)
            return reply

        patch.setattr(TaskRunner, "run", watched)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
def two_agents() -> Iterator[InProcessCluster]:
    with InProcessCluster(2) as running:
        yield running
        running.check_nothing_held()


def skewed_join(session: Session, folder: Path, *, join_type: Any = "inner") -> Dataset:
    left = session.read_parquet(write_files(folder / "left", LEFT, files=8, row_group_rows=ROWS))
    right = session.read_parquet(write_files(folder / "right", RIGHT, files=2, row_group_rows=ROWS))
    return left.join(right, "k", join_type=join_type)


@pytest.mark.parametrize(
    ("agents", "join_type"), [(2, "inner"), (4, "inner"), (2, "left outer"), (4, "left semi"), (4, "left anti")]
)
def test_key_with_half_of_the_rows_is_joined_by_all_agents(
    agents: int, join_type: Any, tmp_path: Path, reads: Reads
) -> None:
    with InProcessCluster(agents) as cluster:
        result = skewed_join(cluster.connect(), tmp_path, join_type=join_type).run()
        assert in_order(result.to_table()) == in_order(LEFT.join(RIGHT, "k", join_type=join_type))
        cluster.check_nothing_held()
    assert [len(those) for those in reads.shares.values()] == [agents]
    uniform = sum(reads.rows.values()) / agents
    assert max(reads.rows.values()) <= 1.5 * uniform
    left, right = result.receipt.shuffles
    assert result.receipt.exact and left.copies == 0 and right.copies > 0
    assert right.rows_in + right.copies == right.rows_out


def test_full_outer_join_is_not_shared_and_right(two_agents: InProcessCluster, tmp_path: Path, reads: Reads) -> None:
    table = skewed_join(two_agents.connect(), tmp_path, join_type="full outer").to_table()
    assert in_order(table) == in_order(LEFT.join(RIGHT, "k", join_type="full outer"))
    assert not reads.shares


def test_without_shares_one_agent_joins_most_of_the_rows(tmp_path: Path, reads: Reads) -> None:
    with InProcessCluster(4, **{"shuffle.hot_partition_factor": 1_000_000}) as cluster:
        skewed_join(cluster.connect(), tmp_path).to_table()
    assert not reads.shares
    assert max(reads.rows.values()) > 1.5 * sum(reads.rows.values()) / 4


def test_shares_that_are_grouped_give_what_duckdb_gives(
    two_agents: InProcessCluster, tmp_path: Path, reads: Reads
) -> None:
    grouped = (
        skewed_join(two_agents.connect(), tmp_path, join_type="left outer").group_by("w").aggregate([("v", "sum")])
    )
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as database:
        database.register("rows", LEFT)
        database.register("others", RIGHT)
        expected = database.sql(
            "select w, sum(v)::bigint as v_sum from rows left join others using (k) group by w"
        ).to_arrow_table()
    assert in_order(grouped.to_table().select(["w", "v_sum"])) == in_order(expected)
    assert reads.shares


@pytest.mark.parametrize("join_type", ["inner", "right outer", "right semi", "right anti"])
def test_larger_right_side_is_the_one_that_is_cut(
    two_agents: InProcessCluster, tmp_path: Path, reads: Reads, join_type: str
) -> None:
    session = two_agents.connect()
    small = session.read_parquet(write_files(tmp_path / "small", RIGHT, files=2, row_group_rows=ROWS))
    large = session.read_parquet(write_files(tmp_path / "large", LEFT, files=8, row_group_rows=ROWS))
    result = small.join(large, "k", join_type=join_type).run()
    assert in_order(result.to_table()) == in_order(RIGHT.join(LEFT, "k", join_type=join_type))
    assert reads.shares
    first, second = result.receipt.shuffles
    assert first.copies > 0 and second.copies == 0 and result.receipt.exact


def test_share_that_came_with_fewer_rows_is_found(
    two_agents: InProcessCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the audit of the wire, switched off by asking for fewer attempts, the receipts still tell."""
    whole = ShuffleClient.fetch_share
    monkeypatch.setattr(
        ShuffleClient,
        "fetch_share",
        lambda *args, attempts, **rest: whole(*args, attempts=attempts[:-1], **rest),
    )
    with pytest.raises(ShuffleIntegrityError):
        skewed_join(two_agents.connect(), tmp_path).to_table()


def test_owner_that_breaks_off_is_asked_again(
    two_agents: InProcessCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = ShuffleClient.fetch_share, threading.Semaphore(1)

    def broken_once(*args: Any, **rest: Any) -> Any:
        if calls.acquire(blocking=False):
            raise PeerLost("the owner broke off", address="127.0.0.1:1")
        return whole(*args, **rest)

    monkeypatch.setattr(ShuffleClient, "fetch_share", broken_once)
    table = skewed_join(two_agents.connect(), tmp_path).to_table()
    assert in_order(table) == in_order(LEFT.join(RIGHT, "k", join_type="inner"))


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_agent_killed_or_frozen_while_shares_run_costs_its_work_and_not_the_job(
    blow: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SABOT_JOBS_PEER_DEADLINE_S", "2")
    started, gate = tmp_path / "started", tmp_path / "go on"
    started.mkdir()
    expected = LEFT.join(RIGHT, "k", join_type="inner")
    with sabot.LocalCluster(agents=3, slots=1) as cluster, ThreadPoolExecutor(1) as pool:
        data = skewed_join(cluster.connect(progress=False, broadcast_bytes_max=0), tmp_path)
        held = data.map_batches(waits_for(gate, started), schema=data.schema)
        answer = pool.submit(held.run)
        until(lambda: len(list(started.iterdir())) == len(cluster.agents))
        os.kill(cluster.agents[1].pid, blow)
        gate.touch()
        result = answer.result(60)
        assert in_order(result.to_table()) == in_order(expected)
        assert result.receipt.exact and result.receipt.shuffles[1].copies > 0
        assert result.stats.agents_lost == ("local-1",)
