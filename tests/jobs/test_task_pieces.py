"""The parts of a task: gathering, calls in slots, and what a failed task keeps alive."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.agent.tasks.streamed_steps import gathered
from sabot.agent.tasks.task_output import Gather
from sabot.agent.tasks.task_runner import schema_after
from sabot.dataflow.execution import MorselSegment
from sabot.dataflow.stage import Filter, MapBatches, Project
from sabot.errors import JobCancelled, UsageError
from sabot.slots import TaskSlotManager
from sabot.slots.morsel_sizer import FIRST_MORSEL_BYTES

from .in_process import InProcessCluster
from .rows import make_table, write_files

SCHEMA = pa.schema([("a", pa.int64())])


def batch(*values: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(values, pa.int64())], schema=SCHEMA)


@given(sizes=st.lists(st.integers(0, 40), max_size=12), rows_max=st.integers(1, 20))
def test_gathered_pieces_hold_every_row_once_and_stay_below_the_limit(sizes: list[int], rows_max: int) -> None:
    gather = Gather(8 * rows_max)
    pieces: list[list[pa.RecordBatch]] = []
    start = 0
    for size in sizes:
        pieces.extend(gather.add([batch(*range(start, start + size))]))
        start += size
    pieces.append(gather.rest())
    assert [value for piece in pieces for part in piece for value in part["a"].to_pylist()] == list(range(start))
    assert all(sum(part.num_rows for part in piece) <= rows_max for piece in pieces)


def test_row_larger_than_the_limit_is_a_piece_of_its_own() -> None:
    gather = Gather(1)
    rows = [part.num_rows for piece in gather.add([batch(1, 2, 3)]) for part in piece]
    assert [*rows, *(part.num_rows for part in gather.rest())] == [1, 1, 1]


def test_stream_is_read_no_further_than_the_rows_wanted() -> None:
    read: list[int] = []

    def stream():  # type: ignore[no-untyped-def]
        for index in range(10):
            read.append(index)
            yield [batch(index, index)]

    assert gathered(stream(), SCHEMA, 5).num_rows == 6
    assert read == [0, 1, 2]
    read.clear()
    gathered(stream(), SCHEMA, 0)
    assert read == [0], "begun, so that the partition is accounted for"
    assert gathered(iter(()), SCHEMA, None).schema == SCHEMA


def test_schema_of_a_segment_is_known_without_rows() -> None:
    text = pa.schema([("t", pa.string())])
    half = Project(names=("half",), expressions=(pc.field("a").cast(pa.float64()),))
    mapped = MapBatches(function=lambda rows: rows, schema=text, name="f")
    keep = Filter(expression=pc.field("a") > 1)
    assert schema_after(MorselSegment(steps=(keep, half)), SCHEMA) == pa.schema([("half", pa.float64())])
    assert schema_after(MorselSegment(steps=(half, mapped, Filter(expression=pc.field("t") == "x"))), SCHEMA) == text


@pytest.fixture
def slots():  # type: ignore[no-untyped-def]
    with TaskSlotManager(1) as manager:
        yield manager


def calls_of(manager: TaskSlotManager, cancelled: threading.Event) -> SlotCalls:
    return SlotCalls(manager, cancelled, morsel_bytes=1024, job_id="j")


def test_timeout_error_of_a_call_is_its_own(slots: TaskSlotManager) -> None:
    def late() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        calls_of(slots, threading.Event()).call(late)


def test_cancel_ends_a_wait_though_the_slot_is_still_busy(slots: TaskSlotManager) -> None:
    cancelled, go_on = threading.Event(), threading.Event()

    def busy() -> None:
        cancelled.set()
        go_on.wait(20)

    with pytest.raises(JobCancelled):
        calls_of(slots, cancelled).call(busy)
    go_on.set()


def test_call_to_the_end_is_not_left_alone_in_its_slot(slots: TaskSlotManager) -> None:
    cancelled, ended = threading.Event(), threading.Event()

    def write() -> None:
        cancelled.set()
        threading.Event().wait(0.3)
        ended.set()

    calls_of(slots, cancelled).call_to_end(write)
    assert ended.is_set()


def test_calls_ahead_answer_in_order_and_run_one_ahead_of_their_reader(slots: TaskSlotManager) -> None:
    made: list[int] = []

    def make(index: int) -> int:
        made.append(index)
        return index

    answers = calls_of(slots, threading.Event()).call_ahead([lambda index=index: make(index) for index in range(9)])
    assert [next(answers), next(answers)] == [0, 1]
    slots.call_in_slot(lambda: None).result()
    assert made == [0, 1, 2]
    answers.close()
    assert made == [0, 1, 2]


class Cargo:
    """What a user's function holds when it fails."""


CARGO: weakref.WeakSet[Cargo] = weakref.WeakSet()


def explodes_with_cargo(rows: pa.RecordBatch) -> pa.RecordBatch:
    cargo = Cargo()
    CARGO.add(cargo)
    raise LookupError("with cargo")


def test_failed_task_keeps_nothing_alive(tmp_path: Path, cluster: InProcessCluster) -> None:
    table = make_table(100)
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", table))
    with pytest.raises(LookupError):
        data.map_batches(explodes_with_cargo, schema=data.schema, processes=False).to_table()
    cluster.wait_until(lambda: all(agent.driver.tasks_running() == 0 for agent in cluster.agents))

    def nothing_is_alive() -> bool:
        gc.collect()
        return not CARGO

    cluster.wait_until(nothing_is_alive)  # a thread that has just answered may still be leaving its frames


def keep(rows: pa.RecordBatch) -> pa.RecordBatch:
    return rows


def test_later_tasks_of_a_stage_know_the_size_that_earlier_ones_found(tmp_path: Path) -> None:
    files = 8
    for number in range(files):
        pq.write_table(pa.table({"a": range(500_000)}), tmp_path / f"{number}.parquet")
    with InProcessCluster(1, slots=1, **{"jobs.split_bytes": 1024}) as cluster:
        data = cluster.connect().read_parquet(str(tmp_path))
        kept = data.map_batches(keep, schema=data.schema, processes=False).group_by([]).aggregate([([], "count_all")])
        assert kept.to_table()["count_all"].to_pylist() == [files * 500_000]
        timeline = cluster.agents[0].seat.task_slot_manager.get_timeline().to_pylist()
    morsels = [row for row in timeline if row["operator"] == "keep"]
    assert sum(row["rows"] for row in morsels) == files * 500_000
    small = [row for row in morsels if row["bytes"] <= FIRST_MORSEL_BYTES]
    # Each task of which nothing is known begins with three of them.
    assert len(small) < 3 * files


def test_rows_that_a_format_cannot_hold_are_refused_with_the_format(tmp_path: Path, cluster: InProcessCluster) -> None:
    data = cluster.connect().from_table(pa.table({"lists": [[1], [2]]}))
    with pytest.raises(UsageError, match="cannot be written as csv"):
        data.write_dataset(str(tmp_path / "out"), format="csv")
    cluster.wait_until(lambda: not (tmp_path / "out").exists())
