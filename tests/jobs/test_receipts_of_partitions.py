"""What a receipt tells of each partition, and that a reader whose bytes differ from the sender's is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.receipts import PARTITIONS_TOLD_MAX, Receipts
from sabot.dataflow.stage import HashShuffle
from sabot.native._native import hash_keys, partition_of, row_bytes

from .in_process import InProcessCluster
from .job_world import broadcast_plan, group_plan
from .rows import make_table, write_files
from .test_coordinator_recovery import Job

TABLE = make_table(5000)


def test_receipt_has_rows_bytes_and_sum_of_each_partition(cluster: InProcessCluster, tmp_path: Path) -> None:
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", TABLE))
    with data.repartition("k", 7).run() as result:
        (shuffle,) = result.receipt.shuffles
        parts = shuffle.partitions
        assert [part.partition for part in parts] == list(range(7))
        assert sum(part.rows for part in parts) == shuffle.rows_in == 5000
        assert sum(part.content_sum for part in parts) % 2**64 == shuffle.sum_in
        plain = TABLE.combine_chunks().to_batches()[0]
        assert sum(part.num_bytes for part in parts) == shuffle.bytes_in == shuffle.bytes_out == row_bytes(plain)
        sizes = Counter(partition_of(hash_keys(plain, ["k"]), 7).to_pylist())
        assert [part.rows for part in parts] == [sizes[partition] for partition in range(7)]
        assert shuffle.skew == pytest.approx(max(sizes.values()) * 7 / 5000)
        assert result.receipt.exact


def test_bytes_of_copies_are_counted_as_copies(tmp_path: Path) -> None:
    small = TABLE.select(["k"]).slice(0, 97)
    with InProcessCluster(2, **{"jobs.broadcast_bytes_max": 1 << 20}) as cluster:
        session = cluster.connect()
        large = session.read_parquet(write_files(tmp_path / "t", TABLE))
        result = large.join(session.from_table(small), "k", join_type="left semi").run()
        (shuffle,) = result.receipt.shuffles
        assert (shuffle.bytes_in, shuffle.bytes_copies) == (8 * 97, 8 * shuffle.copies)
        assert [part.num_bytes for part in shuffle.partitions] == [8 * 97] * 2
        assert result.receipt.exact
        cluster.check_nothing_held()


@pytest.mark.parametrize("copies", [False, True])
def test_reader_that_was_given_other_bytes_is_refused(copies: bool) -> None:
    job = Job(broadcast_plan(*[5] * 4) if copies else group_plan(5, 6, 7), 2)
    job.go_on(ev.StartTask, stage_id=2 if copies else 1)
    (event,) = job.agents.answer(next(one for one in job.waiting if isinstance(one, ev.StartTask)))
    assert isinstance(event, ev.TaskSucceeded)
    (event.reply.copied if copies else event.reply.released)[0].sum.num_bytes += 1
    (failed,) = [one for one in job.tell(event) if isinstance(one, ev.Fail)]
    assert "0 bytes" in failed.failure.message and "1 bytes" in failed.failure.message


def test_receipt_of_very_many_partitions_tells_of_shuffles_as_a_whole() -> None:
    plan = group_plan(1)
    assert isinstance(plan.stages[0].output, HashShuffle)
    few, many = (Receipts(plan, {0: count}).shuffles()[0] for count in (PARTITIONS_TOLD_MAX, PARTITIONS_TOLD_MAX + 1))
    assert len(few.partitions) == PARTITIONS_TOLD_MAX and len(many.partitions) == 0


def test_partitions_of_one_size_have_a_skew_of_one() -> None:
    from sabot.client.receipt import PartitionReceipt, ShuffleReceipt

    def skew(*rows: int) -> float:
        parts = tuple(PartitionReceipt(partition=i, rows=n, num_bytes=0, content_sum=0) for i, n in enumerate(rows))
        totals = {"rows_in": 0, "rows_out": 0, "sum_in": 0, "sum_out": 0, "wire_bytes": 0, "local_bytes": 0}
        return ShuffleReceipt(shuffle_id="s", stage_id=0, num_partitions=len(rows), partitions=parts, **totals).skew

    assert skew(5, 5, 5) == skew() == skew(0, 0) == 1.0
    assert skew(9, 1, 1, 1) == 3.0
