"""Persisted datasets on agents: where their rows lie, how long, and what happens when one of them is lost."""

from __future__ import annotations

import gc
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import sabot
from sabot.errors import PeerLost, UsageError
from tests.dataflow.comparing import assert_same_rows
from tests.jobs.in_process import InProcessCluster

TABLE = pa.table({"k": [n % 5 for n in range(1000)], "x": range(1000), "s": [str(n % 3) for n in range(1000)]})


def published_bytes(cluster: InProcessCluster) -> int:
    return sum(agent.transport.stats()["published_bytes"] for agent in cluster.agents)


def test_later_jobs_read_persisted_rows_on_their_agents_and_not_the_files(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "rows.parquet", row_group_size=100)
    with InProcessCluster(2) as cluster:
        session = cluster.connect()
        kept = session.read_parquet(tmp_path).filter(pc.field("x") >= 100).persist()
        (tmp_path / "rows.parquet").unlink()
        rows = TABLE.slice(100)
        assert kept.count_rows() == 900
        with kept.run() as result:
            assert_same_rows(result.to_table(), rows)
            assert result.receipt.shuffles == ()
        with kept.group_by("s").aggregate([("x", "sum")]).run() as result:
            assert_same_rows(result.to_table(), rows.group_by("s").aggregate([("x", "sum")]))
            assert result.receipt.exact
        joined = kept.join(session.from_table(pa.table({"k": [3], "y": [1.5]})), "k", join_type="inner")
        assert joined.count_rows() == 180
        kept.close()
        with pytest.raises(UsageError, match="it was closed"):
            kept.to_table()
        cluster.check_nothing_held()


def test_rows_are_freed_when_nobody_holds_them_or_what_was_made_of_them() -> None:
    with InProcessCluster(2) as cluster:
        session = cluster.connect()
        derived = session.from_table(TABLE).persist().filter(pc.field("x") < 10)
        gc.collect()
        assert published_bytes(cluster) > 0
        assert derived.to_table().num_rows == 10
        del derived
        gc.collect()
        cluster.wait_until(lambda: published_bytes(cluster) == 0)
        cluster.check_nothing_held()


def test_closing_the_session_frees_persisted_rows() -> None:
    with InProcessCluster(2) as cluster:
        kept = cluster.connect().from_table(TABLE).persist()
        assert published_bytes(cluster) > 0
        cluster.check_nothing_held()
        with pytest.raises(UsageError):
            kept.to_table()


def test_rows_that_nobody_used_for_their_lease_are_gone_and_the_next_job_says_so() -> None:
    with InProcessCluster(2) as cluster:
        session = cluster.connect()
        kept = session.from_table(TABLE).persist()

        async def let_the_lease_end() -> None:
            for agent in cluster.agents:
                agent.driver._state._kept._due = dict.fromkeys(agent.driver._state._kept._due, 0.0)
                agent.driver._state._kept._arm()

        cluster.on_loop(let_the_lease_end())
        cluster.wait_until(lambda: published_bytes(cluster) == 0)
        with pytest.raises(
            UsageError, match=r"no longer has partition \d of a persisted dataset: .* persist the dataset again"
        ):
            kept.to_table()
        cluster.check_nothing_held()


def test_rows_of_an_agent_that_is_lost_are_peer_lost_and_can_be_persisted_again() -> None:
    with sabot.LocalCluster(agents=2, slots=1) as cluster:
        session = cluster.connect()
        source = session.from_table(TABLE)
        kept = source.persist()
        cluster.agents[1].kill()
        with pytest.raises(PeerLost):
            kept.to_table()
        again = source.persist()
        assert_same_rows(again.to_table(), TABLE)
