"""Results and uploads are kept as long as agreed and no longer."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from sabot.client.flight import upload_piece
from sabot.errors import SabotError
from sabot.wire.agent_pb2 import ReleaseJobRequest

from .in_process import InProcessCluster
from .rows import make_table, write_files


def kept_bytes(cluster: InProcessCluster) -> int:
    return sum(agent.held()[2] for agent in cluster.agents)


def test_result_is_kept_until_it_is_closed_and_shuffles_are_not(cluster: InProcessCluster, tmp_path: Path) -> None:
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", make_table(4000)))
    result = data.repartition("k").run()
    assert [agent.transport.stats()["stored_bytes"] for agent in cluster.agents] == [0, 0]
    assert result.to_table().num_rows == result.to_table().num_rows == 4000
    assert kept_bytes(cluster) > 0
    result.close()
    cluster.wait_until(lambda: kept_bytes(cluster) == 0)


def test_release_at_the_coordinator_frees_the_result_on_all_agents(cluster: InProcessCluster, tmp_path: Path) -> None:
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", make_table(4000)))
    result = data.repartition("k").run()
    job_id = result.receipt.job_id
    cluster.on_loop(cluster.agents[0].driver.release(ReleaseJobRequest(job_id=job_id)))
    assert kept_bytes(cluster) == 0
    with pytest.raises(SabotError):
        result.to_table()


def test_uploads_go_with_the_job_that_used_them(cluster: InProcessCluster) -> None:
    result = cluster.connect().from_table(make_table(4000)).group_by([]).aggregate([("v", "sum")]).run()
    assert kept_bytes(cluster) < 1000
    result.close()


def test_result_that_nobody_fetches_goes_when_its_lease_ends(tmp_path: Path) -> None:
    with InProcessCluster(2, slots=1, **{"jobs.result_lease_s": 1}) as cluster:
        data = cluster.connect().read_parquet(write_files(tmp_path / "t", make_table(4000)))
        result = data.repartition("k").run()
        assert kept_bytes(cluster) > 0
        cluster.wait_until(lambda: kept_bytes(cluster) == 0)
        with pytest.raises(SabotError):
            result.to_table()


def test_upload_without_a_job_goes_when_its_lease_ends_and_other_names_stay() -> None:
    with InProcessCluster(1, **{"jobs.upload_lease_s": 1}) as cluster:
        table = make_table(1000)
        transport = cluster.agents[0].transport
        transport.register_partition("mine", 0, table.to_batches()[0])
        before = kept_bytes(cluster)
        upload_piece(transport.address, f"{'ab' * 16}/upload/t", 0, table.to_batches(), table.schema, timeout_s=10)
        assert kept_bytes(cluster) > before
        cluster.wait_until(lambda: kept_bytes(cluster) == before)
        assert transport.fetch_partition(transport.address, "mine", 0).read_all().equals(table)


def test_upload_of_a_running_job_outlives_its_lease(tmp_path: Path) -> None:
    with InProcessCluster(1, **{"jobs.upload_lease_s": 1}) as cluster:
        data = cluster.connect().from_table(make_table(100))
        answer = data.map_batches(wait_for_the_lease, schema=pa.schema([("v", pa.int64())]), processes=False).to_table()
        assert answer.num_rows == 100


def wait_for_the_lease(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Longer than two sweeps of uploads take."""
    import threading

    threading.Event().wait(2.5)
    return batch.select(["v"])
