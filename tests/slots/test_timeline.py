"""What the slots tell of their work: the timeline, histograms per operator, and how each slot spent its time."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.errors import UsageError
from sabot.slots import Morsel, MorselSource, Pipeline, TaskSlotManager
from tests.slots.conftest import Gate, morsels_of

COLUMNS = {
    "slot": pa.int32(),
    "job": pa.string(),
    "operator": pa.string(),
    "source": pa.string(),
    "partition": pa.int64(),
    "start": pa.timestamp("us", "UTC"),
    "end": pa.timestamp("us", "UTC"),
    "rows": pa.int64(),
    "bytes": pa.int64(),
    "stolen": pa.bool_(),
    "gil_wait": pa.duration("us"),
}


def double(rows: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch({"a": pc.multiply(rows["a"], 2)})


def test_timeline_has_the_columns_of_the_manual(manager: TaskSlotManager) -> None:
    table = manager.get_timeline()
    assert table.schema.equals(pa.schema(COLUMNS))
    assert table.num_rows == 0


def test_timeline_tells_every_morsel(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    morsels = morsels_of(batch, 10_000)
    morsels[3].source = MorselSource.NETWORK
    results = manager.execute_morsels(morsels, double)
    rows = sorted(manager.get_timeline().to_pylist(), key=lambda row: row["partition"])
    assert [row["partition"] for row in rows] == [morsel.partition_id for morsel in morsels]
    assert [row["slot"] for row in rows] == [result.slot_id for result in results]
    assert [row["source"] for row in rows] == ["local", "local", "local", "network", "local"]
    assert {row["operator"] for row in rows} == {"double"}
    assert {row["rows"] for row in rows} == {10_000}
    assert {row["bytes"] for row in rows} == {160_000}
    for row in rows:
        assert before < row["start"] <= row["end"] < datetime.now(UTC) + timedelta(seconds=1)
        assert timedelta(0) <= row["gil_wait"] <= row["end"] - row["start"] + timedelta(microseconds=1)


def test_timeline_is_by_start_and_can_be_cut_to_the_last(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    manager.execute_morsels(morsels_of(batch, 1_000), pc.field("a") > 3)
    whole = manager.get_timeline()
    starts = whole["start"].cast(pa.int64()).to_pylist()
    assert starts == sorted(starts)
    assert len(starts) == 50
    last = manager.get_timeline(morsels_max=7)
    assert last["partition"].to_pylist() == whole["partition"].to_pylist()[-7:]


def test_each_slot_keeps_its_last_morsels(batch: pa.RecordBatch) -> None:
    with TaskSlotManager(1, timeline_morsels=4) as manager:
        manager.execute_morsels(morsels_of(batch, 5_000), double)
        assert manager.get_timeline()["partition"].to_pylist() == [30_000, 35_000, 40_000, 45_000]


def test_timeline_that_is_off_keeps_nothing(batch: pa.RecordBatch) -> None:
    with TaskSlotManager(1, timeline_morsels=0) as manager:
        manager.execute_morsels(morsels_of(batch, 5_000), double)
        assert manager.get_timeline().num_rows == 0
        assert manager.get_operator_stats()[0]["morsels"] == 10


@pytest.mark.parametrize("morsels", [-1, 2**20 + 1, True, "all"])
def test_length_of_a_timeline_that_cannot_be_is_refused(morsels: object) -> None:
    with pytest.raises(UsageError, match="timeline_morsels"):
        TaskSlotManager(1, timeline_morsels=morsels)  # type: ignore[arg-type]


def test_call_in_a_slot_has_neither_rows_nor_partition(one_slot: TaskSlotManager) -> None:
    one_slot.call_in_slot(time.perf_counter).result()
    [row] = one_slot.get_timeline().to_pylist()
    assert row["operator"] == "perf_counter"
    assert (row["rows"], row["bytes"], row["partition"], row["job"]) == (None, None, None, None)


def test_nested_morsels_lie_within_the_outer_one(one_slot: TaskSlotManager, batch: pa.RecordBatch) -> None:
    def outer(rows: pa.RecordBatch) -> pa.RecordBatch:
        one_slot.execute_morsels([Morsel(rows, 0, 10, partition_id=7)], double)
        return rows

    one_slot.execute_morsels([Morsel(batch)], outer)
    first, second = one_slot.get_timeline().to_pylist()
    assert (first["rows"], second["rows"], second["partition"]) == (50_000, 10, 7)
    assert first["start"] <= second["start"] <= second["end"] <= first["end"]


def test_timeline_is_read_whole_while_slots_write_it(batch: pa.RecordBatch) -> None:
    with TaskSlotManager(2, timeline_morsels=8) as manager, ThreadPoolExecutor(2) as callers:
        done = threading.Event()

        def read() -> int:
            seen = 0
            while not done.is_set():
                for row in manager.get_timeline().to_pylist():
                    # What one morsel says must fit together: its rows are its partition's number, at 16 bytes each.
                    assert (row["rows"], row["bytes"]) == (row["partition"], 16 * row["partition"])
                    seen += 1
            return seen

        reader = callers.submit(read)
        for _ in range(30):
            manager.execute_morsels([Morsel(batch, 0, rows, partition_id=rows) for rows in range(200)], pc.field("a"))
        done.set()
        assert reader.result() > 0


def test_morsels_in_worker_processes_are_told(one_slot: TaskSlotManager, batch: pa.RecordBatch) -> None:
    def spin(rows: pa.RecordBatch) -> pa.RecordBatch:
        end = time.perf_counter() + 0.003
        while time.perf_counter() < end:
            pass
        return rows

    results = one_slot.execute_morsels(morsels_of(batch, 25_000), spin, processes=True, job="j")
    rows = one_slot.get_timeline().to_pylist()
    assert [(row["operator"], row["job"], row["rows"], row["bytes"]) for row in rows] == [
        ("test_morsels_in_worker_processes_are_told.<locals>.spin", "j", 25_000, 400_000)
    ] * 2
    # The slot has no use for the GIL while its worker runs the function; its own time is that of the wait.
    assert {row["gil_wait"] for row in rows} == {timedelta(0)}
    assert [row["end"] - row["start"] >= timedelta(milliseconds=3) for row in rows] == [True, True]
    [slot] = one_slot.get_slot_stats()
    assert (slot["gil_wait_us"], slot["busy_us"] >= 6_000) == (0, True)
    [stats] = one_slot.get_operator_stats()
    assert stats["morsels"] == 2
    assert stats["run_us"] >= max(6_000, sum(result.run_us for result in results))


def test_pipeline_is_named_by_its_functions(one_slot: TaskSlotManager, batch: pa.RecordBatch) -> None:
    workers = one_slot.worker_pool()
    steps = [("filter", pc.field("a") > 3), ("call", double), ("worker", double, None)]
    one_slot.execute_morsels([Morsel(batch)], Pipeline(steps, workers=workers))
    workers.close()
    assert one_slot.get_timeline()["operator"].to_pylist() == ["filter -> double -> double"]


def test_operators_are_told_apart(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    manager.execute_morsels(morsels_of(batch, 5_000), double)
    manager.execute_morsels(morsels_of(batch, 10_000), pc.field("a") > 3)
    stats = {one["operator"]: one for one in manager.get_operator_stats()}
    assert {name: one["morsels"] for name, one in stats.items()} == {"double": 10, "(a > 3)": 5}
    for one in stats.values():
        assert sum(one["queue_counts"]) == sum(one["run_counts"]) == one["morsels"]
        assert len(one["run_counts"]) == len(one["bounds_us"]) + 1
        assert list(one["bounds_us"]) == sorted(one["bounds_us"])


def test_long_morsel_falls_into_its_bucket(one_slot: TaskSlotManager) -> None:
    def spin() -> None:
        end = time.perf_counter() + 0.003
        while time.perf_counter() < end:
            pass

    one_slot.call_in_slot(spin).result()
    [stats] = one_slot.get_operator_stats()
    bucket = stats["run_counts"].index(1)
    assert stats["bounds_us"][bucket] > 3_000 > stats["run_us"] / 100
    assert stats["run_us"] >= 3_000


def test_number_of_operators_is_bounded(one_slot: TaskSlotManager, batch: pa.RecordBatch) -> None:
    for number in range(200):
        one_slot.execute_morsels([Morsel(batch, 0, 10)], pc.field("a") > number)
    names = [stats["operator"] for stats in one_slot.get_operator_stats()]
    assert len(names) == 128
    assert "(a > 199)" in names
    assert "(a > 0)" not in names
    operators = one_slot.get_timeline()["operator"].to_pylist()
    assert operators[0] is None
    assert operators[-1] == "(a > 199)"


def test_slot_that_runs_is_busy_and_one_that_does_not_is_idle(gate: Gate) -> None:
    with TaskSlotManager(2) as manager:
        held = manager.call_in_slot(gate.hold)
        assert gate.entered.wait(30)
        first = {slot["slot_id"]: slot for slot in manager.get_slot_stats()}
        [busy] = [slot for slot in first.values() if slot["busy"]]
        [idle] = [slot for slot in first.values() if not slot["busy"]]
        assert busy["morsels_processed"] == 0
        later = {slot["slot_id"]: slot for slot in manager.get_slot_stats()}
        while later[busy["slot_id"]]["busy_us"] < busy["busy_us"] + 1_000:
            later = {slot["slot_id"]: slot for slot in manager.get_slot_stats()}
        assert later[busy["slot_id"]]["idle_us"] == busy["idle_us"]
        assert later[idle["slot_id"]]["idle_us"] >= idle["idle_us"] + 900
        assert later[idle["slot_id"]]["busy_us"] == 0
        gate.open()
        held.result()


def test_wait_for_the_gil_is_told(one_slot: TaskSlotManager) -> None:
    one_slot.call_in_slot(int).result()
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1_000)  # this thread keeps the GIL until it waits
    try:
        for _ in range(200):  # the slot may be done before this thread has the GIL again, or come late to ask for it
            future = one_slot.call_in_slot(int)
            while not (one_slot.get_slot_stats()[0]["busy"] or future.done()):
                pass
            end = time.perf_counter() + 0.005
            while time.perf_counter() < end:
                pass
            future.result()
            waited_us = one_slot.get_slot_stats()[0]["gil_wait_us"]
            if waited_us > 2_000:
                break
    finally:
        sys.setswitchinterval(interval_s)
    assert waited_us > 2_000
    assert max(row["gil_wait"] for row in one_slot.get_timeline().to_pylist()) > timedelta(milliseconds=1)


def test_job_of_a_call_is_told(one_slot: TaskSlotManager, batch: pa.RecordBatch) -> None:
    one_slot.execute_morsels([Morsel(batch)], double, job="j1")
    one_slot.run_operator([batch], double, morsel_bytes=2**30, job="j2")
    one_slot.call_in_slot(int, job="j3").result()
    assert one_slot.get_timeline()["job"].to_pylist() == ["j1", "j2", "j3"]


def test_timeline_and_counters_agree_on_what_was_stolen(batch: pa.RecordBatch) -> None:
    with TaskSlotManager(2) as manager, ThreadPoolExecutor(2) as callers:
        runs = [callers.submit(manager.execute_morsels, morsels_of(batch, 100), pc.field("a") > 3) for _ in range(4)]
        for run in runs:
            run.result()
        stolen = manager.get_timeline()["stolen"].to_pylist()
        counted = sum(slot["stolen_morsels"] for slot in manager.get_slot_stats())
    assert len(stolen) == 2_000
    assert sum(stolen) == counted
