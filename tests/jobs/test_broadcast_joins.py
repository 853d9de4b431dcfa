"""A small side of a join is copied to every agent: the answer is pyarrow's, the large side stays, and copies add up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import sabot
from sabot.agent.tasks.task_input import InputAttempts, TaskInput
from sabot.errors import ShuffleIntegrityError
from sabot.shuffle.receipts import PartitionRead
from sabot.wire.agent_pb2 import ReleasedSum
from tests.agent.processes import Agents

from .in_process import InProcessCluster
from .rows import in_order, write_files
from .test_end_to_end_failures import until, waits_for
from .test_newcomers import CUT_SMALL, noting

ROWS = 20_000
LARGE = pa.table(
    {
        "k": pa.array([None if row % 10 == 3 else row * 7919 % 500 for row in range(ROWS)], pa.int64()),
        "v": pa.array(range(ROWS), pa.int64()),
    }
)
SMALL = pa.table(
    {
        "k": pa.array([*range(0, 500, 2), None, 7, 7], pa.int64()),
        "w": pa.array([f"word {i}" for i in range(253)]).dictionary_encode(),
        "n": pa.array([[i, None] for i in range(253)]),
    }
)
LIMIT = 1 << 20


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    with InProcessCluster(3, **{"jobs.broadcast_bytes_max": LIMIT}) as running:
        yield running
        running.check_nothing_held()


@pytest.fixture
def large(tmp_path: Path) -> str:
    return write_files(tmp_path / "large", LARGE, files=8, row_group_rows=ROWS)


@pytest.mark.parametrize("join_type", ["inner", "left outer", "left semi", "left anti"])
def test_small_right_side_is_copied_and_the_answer_is_pyarrows(
    cluster: InProcessCluster, large: str, join_type: Any
) -> None:
    session = cluster.connect()
    joined = session.read_parquet(large).join(session.from_table(SMALL), "k", join_type=join_type)
    result = joined.run()
    names = ["k", "v", "w"] if join_type in ("inner", "left outer") else ["k", "v"]
    expected = LARGE.join(SMALL.drop_columns("n"), "k", join_type=join_type)
    assert in_order(result.to_table().select(names)) == in_order(expected)
    (receipt,) = result.receipt.shuffles
    tasks = result.stats.stages[1].tasks_total
    assert tasks > 3
    assert (receipt.rows_in, receipt.copies) == (SMALL.num_rows, SMALL.num_rows * (tasks - 1))
    assert result.receipt.exact and receipt.num_partitions == 3
    assert receipt.wire_bytes < LIMIT  # the large side has not crossed the wire


@pytest.mark.parametrize("join_type", ["inner", "right outer", "right semi", "right anti"])
def test_small_left_side_is_copied_where_the_right_one_is_kept(
    cluster: InProcessCluster, large: str, join_type: Any
) -> None:
    session = cluster.connect()
    small = SMALL.drop_columns("n")
    joined = session.from_table(small).join(session.read_parquet(large), "k", join_type=join_type)
    assert "the left side this agent's copy" in joined.explain()
    assert in_order(joined.to_table()) == in_order(small.join(LARGE, "k", join_type=join_type))


@pytest.mark.parametrize("join_type", ["right outer", "right semi", "right anti", "full outer"])
def test_side_that_gives_rows_by_itself_is_not_copied(cluster: InProcessCluster, large: str, join_type: Any) -> None:
    session = cluster.connect(broadcast_bytes_max=100_000)
    joined = session.read_parquet(large).join(session.from_table(SMALL.drop_columns("n")), "k", join_type=join_type)
    assert "broadcast" not in joined.explain()
    assert in_order(joined.to_table()) == in_order(LARGE.join(SMALL.drop_columns("n"), "k", join_type=join_type))


def test_star_is_joined_in_one_stage_and_grouped_as_duckdb_does(cluster: InProcessCluster, large: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    others = pa.table({"w": SMALL["w"].cast(pa.string()), "kind": [f"kind {i % 7}" for i in range(253)]})
    small = SMALL.drop_columns("n").set_column(1, "w", SMALL["w"].cast(pa.string()))
    session = cluster.connect()
    star = (
        session.read_parquet(large)
        .join(session.from_table(small), "k", join_type="inner", filter_expression=pc.field("v") > 100)
        .join(session.from_table(others), "w", join_type="left outer")
        .group_by("kind")
        .aggregate([("v", "sum"), ([], "count_all")])
    )
    result = star.run()
    with duckdb.connect() as database:
        for name, table in (("facts", LARGE), ("small", small), ("others", others)):
            database.register(name, table)
        expected = database.sql(
            "select kind, sum(v)::bigint v_sum, count(*) count_all from facts join small on facts.k = small.k and "
            "v > 100 left join others using (w) group by kind"
        ).to_arrow_table()
    assert in_order(result.to_table()) == in_order(expected.cast(result.to_table().schema))
    assert [stage.label for stage in result.stats.stages] == [
        "read a table",
        "read a table",
        "read 8 parquet files, join on k, join on w",
        "group by kind",
    ]
    assert result.receipt.exact


def test_a_limit_of_0_shuffles_both_sides(cluster: InProcessCluster, large: str) -> None:
    session = cluster.connect(broadcast_bytes_max=0)
    result = session.read_parquet(large).join(session.from_table(SMALL), "k", join_type="left semi").run()
    assert len(result.receipt.shuffles) == 2


def test_copies_that_differ_are_found(cluster: InProcessCluster, large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the audits of the wire and the store: a task that was given a row less than the others is named."""
    copy = TaskInput.copy

    def short_once(given: TaskInput, copied: InputAttempts, *rest: Any) -> pa.Table:
        table = copy(given, copied, *rest)
        if copied.partition == 1:
            told: ReleasedSum = given._copied[-1]
            told.sum.rows -= 1
        return table

    monkeypatch.setattr(TaskInput, "copy", short_once)
    session = cluster.connect()
    joined = session.read_parquet(large).join(session.from_table(SMALL), "k", join_type="inner")
    with pytest.raises(ShuffleIntegrityError, match=r"253 rows .* were sent"):
        joined.to_table()


def test_copy_that_is_missing_is_sent_again_alone(
    cluster: InProcessCluster, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, broken = cluster.agents[1].transport, [True]
    read = transport.read_partition

    def breaks_once(name: str, partition: int, **options: Any) -> PartitionRead:
        if broken and broken.pop():
            raise ShuffleIntegrityError("rows are missing", shuffle=name, partition=partition)
        return read(name, partition, **options)

    monkeypatch.setattr(transport, "read_partition", breaks_once)
    session = cluster.connect()
    result = session.read_parquet(large).join(session.from_table(SMALL), "k", join_type="left semi").run()
    assert in_order(result.to_table()) == in_order(LARGE.join(SMALL.select(["k"]), "k", join_type="left semi"))
    assert not broken and result.receipt.exact
    assert result.stats.stages[0].tasks_redone == result.stats.stages[0].tasks_total


def test_agents_without_a_copy_of_their_own_pull_one(
    cluster: InProcessCluster, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As agents do that come while a job runs."""
    from sabot.agent.coordination.job_stages import JobStages

    monkeypatch.setattr(JobStages, "_copy_of", lambda self, agent, stage_id: 0)
    session = cluster.connect()
    result = session.read_parquet(large).join(session.from_table(SMALL), "k", join_type="left semi").run()
    assert in_order(result.to_table()) == in_order(LARGE.join(SMALL.select(["k"]), "k", join_type="left semi"))
    assert result.receipt.exact


def test_agent_that_joins_while_rows_are_joined_pulls_a_copy(tmp_path: Path) -> None:
    large = write_files(tmp_path / "large", LARGE, files=100, row_group_rows=ROWS)
    notes = tmp_path / "notes"
    notes.mkdir()
    agents = Agents(tmp_path / "agents")
    try:
        first = agents.start("first", environment=CUT_SMALL)
        with sabot.connect(first.control, progress=False) as session:
            rows = session.read_parquet(large)
            held = rows.map_batches(noting(tmp_path), schema=rows.schema, processes=False)
            job = held.join(session.from_table(SMALL.select(["k"])), "k", join_type="left semi").submit(timeout_s=120)
            until(lambda: any(notes.iterdir()))
            late = agents.start("late", "--join", first.control)
            until((notes / str(late.process.pid)).exists)
            (tmp_path / "go on").touch()
            with job.result() as result:
                expected = LARGE.join(SMALL.select(["k"]), "k", join_type="left semi")
                assert in_order(result.to_table()) == in_order(expected)
                assert result.receipt.exact and result.stats.agents_joined == ("late",)
                assert len(list(notes.iterdir())) == 2 and result.receipt.shuffles[0].num_partitions == 1
    finally:
        agents.close()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_agent_killed_or_frozen_while_rows_are_joined_costs_its_work_and_no_copy(
    blow: signal.Signals, tmp_path: Path, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SABOT_JOBS_PEER_DEADLINE_S", "2")
    started, gate = tmp_path / "started", tmp_path / "go on"
    started.mkdir()
    with sabot.LocalCluster(agents=3, slots=1) as cluster, ThreadPoolExecutor(1) as pool:
        session = cluster.connect(progress=False)
        joined = session.read_parquet(large).join(session.from_table(SMALL.select(["k"])), "k", join_type="left semi")
        held = joined.map_batches(waits_for(gate, started), schema=joined.schema)
        answer = pool.submit(held.run)
        until(lambda: len(list(started.iterdir())) == len(cluster.agents))
        os.kill(cluster.agents[1].pid, blow)
        gate.touch()
        result = answer.result(60)
        assert in_order(result.to_table()) == in_order(LARGE.join(SMALL.select(["k"]), "k", join_type="left semi"))
        assert result.receipt.exact and result.stats.agents_lost == ("local-1",)
        assert result.stats.stages[0].tasks_redone == 0
