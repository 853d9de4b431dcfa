"""Batches that a function fails on are kept with what went wrong: every row is in the answer or there, and once."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cloudpickle
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import sabot
from sabot.agent.coordination.stage_account import StageAccount
from sabot.agent.coordination.stage_run import Running, StageRun
from sabot.dataflow.quarantine import QUARANTINE_BYTES_MAX
from sabot.dataflow.stage import HashShuffle, PartitionSplit, ShuffleInput, Stage
from sabot.errors import LimitReached, UsageError
from sabot.wire.agent_pb2 import Quarantined, RunTaskReply

from .in_process import InProcessCluster
from .rows import make_table, write_files

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers are spared what this module imports

TABLE = pa.table({"v": pa.array(range(1000), pa.int64()), "s": [f"row {i}" for i in range(1000)]})
FAULTY = {17, 18, 500, 999}


class Faulty(Exception):
    pass


def checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    found = FAULTY & set(batch["v"].to_pylist())
    if found:
        raise Faulty(f"rows {sorted(found)}")
    return batch


def test_failing_batches_are_kept_with_what_went_wrong(cluster: InProcessCluster) -> None:
    data = cluster.connect().from_table(TABLE).repartition(num_partitions=1)
    with data.map_batches(checked, batch_rows=10, on_error="quarantine").run() as result:
        answer, kept = result.to_table(), result.quarantine
        assert sum(stage.rows_quarantined for stage in result.stats.stages) == kept.num_rows
    assert kept.column_names == ["v", "s", *(f"error_{of}" for of in ("type", "message", "traceback", "stage", "task"))]
    assert 30 <= kept.num_rows <= 40 and set(kept["v"].to_pylist()) >= FAULTY
    assert sorted(answer["v"].to_pylist() + kept["v"].to_pylist()) == list(range(1000))
    assert all(row["s"] == f"row {row['v']}" for row in kept.to_pylist())
    assert {kind.rpartition(".")[2] for kind in kept["error_type"].to_pylist()} == {"Faulty"}
    assert any(text.startswith("rows [17") for text in kept["error_message"].to_pylist())
    trace = kept["error_traceback"][0].as_py()
    assert "in checked" in trace and trace.count("File ") == 1, "the user's own frames"
    assert set(kept["error_stage"].to_pylist()) == {1} and set(kept["error_task"].to_pylist()) == {0}


@pytest.mark.parametrize("processes", [True, False])
def test_rows_go_on_through_further_steps_and_shuffles(cluster: InProcessCluster, processes: bool) -> None:
    data = (
        cluster.connect()
        .from_table(TABLE)
        .map_batches(checked, batch_rows=20, on_error="quarantine", processes=processes)
    )
    counted = data.append_column("even", pc.equal(pc.bit_wise_and(pc.field("v"), 1), 0)).group_by("even")
    with counted.aggregate([("v", "sum"), ([], "count_all")]).run() as result:
        answer = result.to_table()
        kept = result.quarantine
    assert pc.sum(answer["count_all"]).as_py() + kept.num_rows == 1000
    assert pc.sum(answer["v_sum"]).as_py() + pc.sum(kept["v"]).as_py() == sum(range(1000))


def test_wrong_answers_are_failures_too(cluster: InProcessCluster) -> None:
    def sometimes_wrong(batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch.select(["v"]) if 500 in batch["v"].to_pylist() else batch

    data = (
        cluster.connect()
        .from_table(TABLE)
        .map_batches(sometimes_wrong, batch_rows=10, schema=TABLE.schema, on_error="quarantine")
    )
    with data.run() as result:
        assert result.num_rows == 990
        assert "returned columns (v: int64), but was to return" in result.quarantine["error_message"][0].as_py()


def test_each_function_has_a_table_of_its_own(cluster: InProcessCluster) -> None:
    def doubled(batch: pa.RecordBatch) -> pa.RecordBatch:
        if 300 in batch["v"].to_pylist():
            raise ValueError("300")
        return pa.record_batch({"w": pc.multiply(batch["v"], 2)})

    data = cluster.connect().from_table(TABLE).map_batches(checked, batch_rows=10, on_error="quarantine")
    with data.map_batches(doubled, batch_rows=10, on_error="quarantine").run() as result:
        first, second = result.quarantines
        with pytest.raises(UsageError, match=r"one function .* and here are checked, doubled; see quarantines"):
            _ = result.quarantine
        assert (first.function, second.function) == ("checked", "doubled")
        assert first.table.num_rows in (30, 40) and second.table.num_rows == 10
        assert result.num_rows == 1000 - first.table.num_rows - 10


def test_nothing_that_failed_is_a_table_without_rows(cluster: InProcessCluster) -> None:
    session = cluster.connect()
    with session.from_table(TABLE).map_batches(lambda batch: batch, on_error="quarantine").run() as result:
        assert result.num_rows == 1000 and result.quarantine.num_rows == 0
        assert result.quarantine.column_names[:2] == ["v", "s"]
    with session.from_table(TABLE).run() as plain, pytest.raises(UsageError, match="here are none"):
        _ = plain.quarantine


def test_rows_that_are_taken_without_the_result_come_with_a_warning(cluster: InProcessCluster) -> None:
    data = cluster.connect().from_table(TABLE).map_batches(checked, batch_rows=10, on_error="quarantine")
    with pytest.warns(
        UserWarning, match=r"checked failed on batches of [34]0 rows, which the answer is without"
    ) as told:
        data.to_table()
        list(data.to_batches())
        data.persist().close()
    assert [warning.filename for warning in told] == [__file__] * 3, "it names the user's line"
    with pytest.warns(UserWarning, match="checked failed on batches of"):
        data.count_rows()


def test_more_than_is_kept_fails_the_job_by_name(cluster: InProcessCluster) -> None:
    noise = pa.table({"b": [random.randbytes(1 << 20) for _ in range(QUARANTINE_BYTES_MAX // (1 << 20) + 3)]})

    def refuse(batch: pa.RecordBatch) -> pa.RecordBatch:
        raise Faulty("all of it")

    data = cluster.connect().from_table(noise).repartition(num_partitions=1)
    with pytest.raises(LimitReached, match=r"refuse failed on in stage 1 measure more than .* 'all of it'"):
        data.map_batches(refuse, schema=noise.schema, on_error="quarantine").run()


def test_limit_holds_for_all_tasks_of_a_stage_together() -> None:
    account = StageAccount()
    half = RunTaskReply(quarantined=[Quarantined(rows=5, arrow_stream=bytes(QUARANTINE_BYTES_MAX // 2))])
    account.add(0, half, None)
    account.add(0, half, half)  # a replay takes the place of what it replaces
    account.add(0, half, None)
    with pytest.raises(LimitReached, match="measure more than"):
        account.add(0, RunTaskReply(quarantined=[Quarantined(rows=1, arrow_stream=b"x")]), None)


def test_batches_that_kill_their_worker_or_hang_are_kept_too(cluster: InProcessCluster) -> None:
    def fatal(batch: pa.RecordBatch) -> pa.RecordBatch:
        if 17 in batch["v"].to_pylist():
            os._exit(5)
        while 500 in batch["v"].to_pylist():
            pass
        return batch

    data = cluster.connect().from_table(TABLE).filter(pc.field("v") >= 0)
    # Longer than a busy machine lets one wait that does nothing: of a hundred calls one is to run into it.
    fussy = data.map_batches(fatal, batch_rows=10, schema=TABLE.schema, timeout_s=2, on_error="quarantine")
    with fussy.append_column("w", pc.field("v") + 1).run() as result:
        answer, kept = result.to_table(), result.quarantine.sort_by("v")
    assert sorted(answer["v"].to_pylist() + kept["v"].to_pylist()) == list(range(1000))
    assert kept.num_rows == 20 and {17, 500} <= set(kept["v"].to_pylist())
    first, last = kept.slice(0, 1).to_pylist()[0], kept.slice(19, 1).to_pylist()[0]
    assert first["error_type"] == "sabot.errors.TaskFailed" and "ended with exit code 5" in first["error_message"]
    assert last["error_type"] == "sabot.errors.LimitReached" and "its limit of 2000 ms" in last["error_message"]


class OpensNowhere:
    """Fails where it is unpickled: in the worker."""

    def __reduce__(self) -> tuple[object, ...]:
        return _not_here, ()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch


def _not_here() -> object:
    raise ModuleNotFoundError("no module named elsewhere")


def test_function_that_is_not_there_fails_the_job_and_no_batch(cluster: InProcessCluster) -> None:
    data = cluster.connect().from_table(TABLE)
    with pytest.raises(UsageError, match="cannot be loaded here"):
        data.map_batches(OpensNowhere(), schema=TABLE.schema, on_error="quarantine").run()


def test_on_error_that_is_unknown_is_refused(cluster: InProcessCluster) -> None:
    with pytest.raises(UsageError, match='on_error is "raise" or "quarantine", not \'skip\''):
        cluster.connect().from_table(TABLE).map_batches(checked, on_error="skip")  # type: ignore[arg-type]


STAGE = Stage(
    stage_id=1,
    label="x",
    input=ShuffleInput(stage_ids=(0,)),
    steps=(),
    output=HashShuffle(keys=("v",), num_partitions=2),
    schema=TABLE.schema,
)


def committed(run: StageRun, rows: int, text: bytes) -> Running:
    running = run.take(0, now_s=0.0)
    assert running is not None
    part = Quarantined(stage_id=1, rows=rows, arrow_stream=text)
    run.commit(running, RunTaskReply(rows_out=10, placement_digest=7, quarantined=[part]), now_s=1.0)
    return running


def test_only_what_the_attempt_that_counts_failed_on_is_told() -> None:
    run = StageRun(STAGE, tasks_expected=1, repeatable=False)
    run.start([PartitionSplit(partition=0)])
    run.queue(lambda _: None, lambda _: True)
    committed(run, 3, b"first")
    run.reset()
    assert run.quarantined() == []
    run.queue(lambda _: None, lambda _: True)
    committed(run, 2, b"second")
    assert [(part.rows, part.arrow_stream) for part in run.quarantined()] == [(2, b"second")]
    assert run.progress().rows_quarantined == 2


def test_replay_that_fails_on_other_rows_is_unlike() -> None:
    run = StageRun(STAGE, tasks_expected=1, repeatable=False)
    run.start([PartitionSplit(partition=0)])
    run.queue(lambda _: None, lambda _: True)
    running = committed(run, 3, b"first")
    replay = Running(task=0, agent=0, attempt=1, partitions=frozenset({1}), split=running.split, since_s=0.0)
    for rows, unlike in ((3, False), (2, True)):
        reply = RunTaskReply(rows_out=10, placement_digest=7, quarantined=[Quarantined(rows=rows)])
        assert run.is_unlike(replay, reply) is unlike


def test_agent_that_dies_loses_and_doubles_no_row_of_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SABOT_JOBS_PEER_DEADLINE_S", "2")
    gate, started = tmp_path / "go on", tmp_path / "started"
    started.mkdir()
    rows = make_table(4000)

    def fussy(batch: pa.RecordBatch) -> pa.RecordBatch:
        if any(v % 100 == 0 for v in batch["v"].to_pylist()):
            raise ValueError("a round number")
        return batch

    def held_up(batch: pa.RecordBatch) -> pa.RecordBatch:
        (started / str(os.getpid())).touch()
        while not gate.exists() and gate.parent.exists():
            threading.Event().wait(0.01)
        return batch

    with sabot.LocalCluster(agents=3, slots=1) as cluster, ThreadPoolExecutor(1) as threads:
        session = cluster.connect(progress=False)
        data = session.read_parquet(write_files(tmp_path / "t", rows))
        data = data.map_batches(fussy, batch_rows=7, schema=data.schema, on_error="quarantine").repartition("k")
        running = threads.submit(data.map_batches(held_up, schema=data.schema).run)
        end_s = time.monotonic() + 60
        while len(list(started.iterdir())) < 3:  # all have read what the first stage has sent
            assert time.monotonic() < end_s and not running.done()
            threading.Event().wait(0.01)
        os.kill(cluster.agents[1].pid, signal.SIGKILL)
        gate.touch()
        with running.result(60) as result:
            answer, kept = result.to_table(), result.quarantine
            assert sum(stage.tasks_redone for stage in result.stats.stages) > 0
            assert result.stats.agents_lost == (cluster.agents[1].agent_id,)
        session.close()
    assert sorted(answer["v"].to_pylist() + kept["v"].to_pylist()) == sorted(rows["v"].to_pylist())
    assert {v for v in kept["v"].to_pylist() if v % 100 == 0} == {v for v in rows["v"].to_pylist() if v % 100 == 0}
