"""What a result says of its stages is what they did; explain(analyze=True) says it in words."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from sabot.agent.coordination.stage_account import StageAccount, skew_of
from sabot.client.receipt import stages_from
from sabot.wire.agent_pb2 import RunTaskReply, StageProgress

from .in_process import InProcessCluster

TABLE = pa.table({"k": pa.array([0] * 900 + list(range(100)), pa.int64()), "v": pa.array(range(1000))})


def test_stages_say_rows_bytes_times_slots_and_skew(cluster: InProcessCluster, tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet", row_group_size=100)
    data = cluster.connect().read_parquet(tmp_path / "t.parquet").repartition("k", num_partitions=8)
    with data.map_batches(lambda batch: batch.slice(0, 0), schema=TABLE.schema).run() as result:
        read, gave = result.stats.stages
    assert (read.rows_in, read.rows_out, gave.rows_in, gave.rows_out) == (1000, 1000, 1000, 0)
    assert read.wire_bytes > 0 and read.local_bytes > 0 and gave.wire_bytes == 0
    assert (read.wire_bytes, read.local_bytes) == (result.receipt.wire_bytes, result.receipt.local_bytes)
    assert read.skew > 900 / (1000 / 8) - 0.1, "the rows of one key are in one partition"
    assert gave.skew == 0.0, "no task gave a row"
    assert read.slots_used == gave.slots_used == 2
    for stage in (read, gave):
        assert 0 < stage.elapsed_s <= result.stats.elapsed_s and stage.task_s > 0 and stage.tasks_redone == 0


def test_analysis_is_the_plan_with_what_was_measured(cluster: InProcessCluster) -> None:
    data = cluster.connect().from_table(TABLE).group_by("k").aggregate([("v", "sum")])
    plain, measured = data.explain(), data.explain(analyze=True)
    lines = measured.splitlines()
    assert [line for line in lines[:-1] if line and line[:8] != "  took  "] == list(filter(None, plain.splitlines()))
    took = [line for line in lines if line.startswith("  took  ")]
    assert len(took) == 2 and "1,000 rows in, " in took[0] and " over the wire, " in took[0] and "2 slots" in took[0]
    assert took[1].endswith("times the mean") and ", 100 out" in took[1]
    assert lines[-1].startswith("the whole job took ")
    assert repr(measured) == str(measured), "a prompt shows it as it stands"


def test_analysis_is_a_table_for_rich(cluster: InProcessCluster) -> None:
    measured = cluster.connect().from_table(TABLE).repartition("k").explain(analyze=True)
    written = io.StringIO()
    Console(file=written, force_terminal=True, width=140).print(measured)
    text = written.getvalue()
    assert measured.splitlines()[0] in text
    for word in ("rows in", "task time", "slots", "skew", "1: repartition"):
        assert word in text


def test_replay_counts_rows_once_and_bytes_and_time_each_time() -> None:
    account = StageAccount()
    first = RunTaskReply(
        rows_in=10, rows_out=8, wire_bytes=100, local_bytes=1, task_s=0.5, slots=[0, 1], spilled_bytes=7
    )
    account.add(0, first, None)
    account.add(1, RunTaskReply(rows_in=10, rows_out=8, wire_bytes=30, task_s=0.25, slots=[1]), first)
    progress = StageProgress()
    account.fill(progress)
    (stage,) = stages_from([progress])
    assert (stage.rows_in, stage.rows_out, stage.wire_bytes, stage.local_bytes) == (10, 8, 130, 1)
    assert stage.task_s == 0.75 and stage.slots_used == 3 and stage.spilled_bytes == 7


def test_skew_is_the_largest_part_by_the_mean() -> None:
    assert skew_of([1, 1, 1, 5]) == 2.5 and skew_of([3, 3]) == 1.0 and skew_of([0, 0]) == 0.0 and skew_of([]) == 0.0
