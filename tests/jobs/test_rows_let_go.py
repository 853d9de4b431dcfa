"""While a task reads on, it holds nothing of the rows before: of those that it was given, nor of what came of them.

Looked at is what is allocated from the pool, of which all rows are, each time that more is read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sabot.agent.files.footers import Footers
from sabot.agent.files.parquet_rows import ParquetRows
from sabot.agent.files.sources import describe_source
from sabot.agent.tasks.exact_batches import exact_batches
from sabot.agent.tasks.joins import joined_with_copy
from sabot.agent.tasks.large_input import LargeInput
from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.agent.tasks.streamed_steps import drawn, grouped_in_part, morsels
from sabot.agent.tasks.task_output import Gather
from sabot.agent.tasks.task_quarantine import TaskQuarantine
from sabot.dataflow.aggregation import split_aggregation
from sabot.dataflow.dataset import Dataset
from sabot.dataflow.execution import pipeline_steps
from sabot.dataflow.function_steps import MapBatches
from sabot.dataflow.scan import SourceRequest
from sabot.dataflow.stage import BroadcastJoin, Draw, FilePart, Filter, Join
from sabot.slots import MorselSource, TaskSlotManager
from sabot.slots.operators import Pipeline

from .in_process import InProcessCluster

MIB = 1 << 20
BATCH_ROWS = MIB // 16
SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.int64())])
PARTIAL = split_aggregation(("k",), (("v", "sum"),), SCHEMA)
LOCAL = MorselSource.LOCAL

Stream = Iterator[list[pa.RecordBatch]]


def rows_from(first: int, rows: int, keys: int = 1 << 62) -> pa.RecordBatch:
    numbers = pc.add(pa.array(range(first, first + rows), pa.int64()), 0)
    few = pc.subtract(numbers, pc.multiply(pc.divide(numbers, keys), keys))
    return pa.record_batch([few, numbers], schema=SCHEMA)


class Source:
    """A stream of batches of a MiB, which notes what is allocated whenever the next one is asked for: in a slot, as
    rows are read there, and a slot lets go of what it has made when it turns to the next call."""

    def __init__(self, calls: SlotCalls, batches: int = 8, keys: int = 1 << 62) -> None:
        self.held: list[int] = []
        self._calls = calls
        self._batches = batches
        self._keys = keys

    def stream(self) -> Stream:
        before = pa.total_allocated_bytes()
        for index in range(self._batches):
            self.held.append(self._calls.call(pa.total_allocated_bytes) - before)
            yield [rows_from(index * BATCH_ROWS, BATCH_ROWS, self._keys)]


@pytest.fixture
def calls() -> Iterator[SlotCalls]:
    with TaskSlotManager(1) as manager:
        yield SlotCalls(manager, threading.Event(), morsel_bytes=MIB // 4, job_id="j")


def quarantining(stream: Stream, calls: SlotCalls) -> Stream:
    step = MapBatches(function=lambda rows: rows, schema=SCHEMA, name="f", on_error="quarantine")
    return TaskQuarantine(stage_id=1, task=0, calls=calls).without_failed(step, stream)


def joining(stream: Stream, calls: SlotCalls, bytes_max: int = MIB // 2) -> Stream:
    join = Join(
        keys=("k",), right_keys=("w",), join_type="inner", left_suffix=None, right_suffix=None, coalesce_keys=True
    )
    copy = pa.table({"w": pa.array([1, 2, 3], pa.int64())})
    step = BroadcastJoin(join=join, stage_id=0, side=1)
    return joined_with_copy(step, stream, SCHEMA, copy, source=LOCAL, calls=calls, bytes_max=bytes_max)


def grouping(stream: Stream, calls: SlotCalls) -> Stream:
    assert PARTIAL is not None
    return grouped_in_part(PARTIAL.partial, stream, SCHEMA, LOCAL, calls, bytes_max=MIB // 2)


STEPS: dict[str, Callable[[Stream, SlotCalls], Stream]] = {
    "morsels": lambda stream, calls: morsels(
        Pipeline(pipeline_steps([Filter(expression=pc.field("v") >= 0)])), stream, LOCAL, calls, whole=False
    ),
    "draws": lambda stream, calls: drawn(Draw(name="x", seed=1), 0, stream, LOCAL, calls),
    "exact batches": lambda stream, calls: exact_batches(stream, SCHEMA, BATCH_ROWS // 2, calls),
    "quarantine": quarantining,
    "join with a copy": joining,
    "grouping": grouping,
    "pieces": lambda stream, _: Gather(MIB).pieces(stream),
    "pieces of batches": lambda stream, _: Gather(MIB // 2).pieces(stream),
}


@pytest.mark.parametrize("step", list(STEPS))
def test_a_step_over_a_stream_holds_nothing_of_what_it_was_given_when_it_asks_for_more(
    calls: SlotCalls, step: str
) -> None:
    source = Source(calls, keys=5 if step == "grouping" else 1 << 62)
    rows = 0
    for batches in STEPS[step](source.stream(), calls):
        rows += sum(batch.num_rows for batch in batches)
        del batches
    assert rows
    # What has been gathered waits for more, up to a batch, and numbers are drawn for 65,536 rows at a time.
    kept = {"pieces": MIB, "join with a copy": MIB, "draws": MIB // 2}
    most = kept.get(step, 0) + MIB // 4
    assert max(source.held) < most, source.held


class Readings:
    """What is allocated whenever rows are read, in the calls that are watched."""

    def __init__(self) -> None:
        self.held: list[int] = []

    def watch(self, patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            self.held.append(pa.total_allocated_bytes())
            return real(*arguments, **options)

        patch.setattr(owner, name, noted)

    def watch_items(self, patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        """Each item that an iterator is asked for is a reading."""
        real = getattr(owner, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            items = real(*arguments, **options)
            while True:
                self.held.append(pa.total_allocated_bytes())
                try:
                    item = next(items)
                except StopIteration:
                    return
                yield item
                del item

        patch.setattr(owner, name, noted)

    @property
    def grown(self) -> int:
        """By how much more than at the first reading there was at a later one."""
        return max(self.held) - self.held[0]


@pytest.fixture
def readings() -> Readings:
    return Readings()


ROWS = 300_000
COLUMNS = [f"c{index}" for index in range(6)]  # of 8 bytes
PART_BYTES = 2 * MIB
SORT_BYTES = 5 * MIB  # of which twice as much may be sort columns and their order
SMALL = 64 << 10  # what is gathered for a shuffle, and a chunk of it


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    limits = {"jobs.partitions_per_slot": 1, "jobs.split_bytes": 1 << 30, "shuffle.scatter_bytes_max": SMALL}
    with InProcessCluster(1, slots=1, **limits) as running:
        work_on(running, PART_BYTES)
        yield running
        running.check_nothing_held()


def work_on(cluster: InProcessCluster, part_bytes: int) -> None:
    runner = cluster.agents[0].driver._state._runner
    runner._limits = replace(runner._limits, partition_bytes_max=part_bytes, read_bytes_max=part_bytes)


@pytest.fixture
def rows(cluster: InProcessCluster, tmp_path: Path) -> Iterator[Dataset]:
    column = rows_from(0, ROWS)["v"]
    names = ["k", "v", *COLUMNS]
    table = pa.table([column] * len(names), names)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=ROWS)
    with cluster.connect(broadcast_bytes_max=0) as session:
        yield session.read_parquet(str(tmp_path / "rows.parquet"))


def none_of(rows: pa.RecordBatch) -> pa.RecordBatch:
    return rows.slice(0, 0)


def run(job: Dataset) -> None:
    """Sends on what the job gives, so that the stage before keeps none of it, and drops it."""
    sent_on = job.repartition([job.schema.names[0]], 1)
    with sent_on.map_batches(none_of, schema=job.schema, processes=False).run() as result:
        assert result.receipt.exact


def test_a_task_holds_nothing_of_the_rows_that_it_has_sent_when_it_reads_more_of_its_file(
    rows: Dataset, readings: Readings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    readings.watch(monkeypatch, ParquetRows, "read")
    source = describe_source(SourceRequest(format="parquet", paths=(str(tmp_path / "rows.parquet"),)))
    part = FilePart(file=source.files[0], row_groups=(0,), rows=ROWS)
    with pa.OSFile(part.file.path) as opened:
        reader = ParquetRows(opened, part, source.schema, Footers(), filesystem=b"", bytes_max=PART_BYTES)
        while not reader.ended:
            assert reader.read().num_rows
        reader.close()
    by_the_reader, readings.held = readings.grown, []  # its pages, and the room for its next rows
    run(rows.filter(pc.field("v") >= 0))
    assert len(readings.held) >= 4
    assert readings.grown < by_the_reader + PART_BYTES // 2, readings.held


@pytest.mark.parametrize("step", ["sort", "group", "join"])
def test_a_part_of_a_large_partition_holds_nothing_of_the_part_before(
    cluster: InProcessCluster, rows: Dataset, readings: Readings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    part_bytes = SORT_BYTES if step == "sort" else PART_BYTES
    work_on(cluster, part_bytes)
    job = {
        "sort": lambda: rows.repartition(["k"], 1).sort_by([("k", "descending")]),
        "group": lambda: rows.repartition(["k"], 1).group_by("k").aggregate([("v", "list"), ("c1", "list")]),
        "join": lambda: rows.join(rows.select(["k", "v"]), "k", join_type="inner", right_suffix="_r"),
    }[step]()
    readings.watch(monkeypatch, LargeInput, "chosen")
    run(job)
    if step == "join":  # the second side of each part is read beside the first
        readings.held = readings.held[::2]
    assert len(readings.held) >= 3
    assert readings.grown < part_bytes // 4, readings.held


@pytest.mark.parametrize("step", ["fold", "probe"])
def test_a_piece_of_one_key_of_a_large_partition_holds_nothing_of_the_piece_before(
    rows: Dataset, readings: Readings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    hot = rows.append_column("h", pc.add(pc.multiply(pc.field("k"), 0), 7)).repartition(["h"], 1)
    few = rows.filter(pc.field("k") == 7).select(["v"]).rename_columns(["h"])
    job = {
        "fold": lambda: hot.group_by("h").aggregate([("v", "sum"), ("c1", "max")]),
        "probe": lambda: hot.join(few, "h", join_type="inner"),
    }[step]()
    readings.watch_items(monkeypatch, Gather, "pieces")
    monkeypatch.setattr("sabot.dataflow.planner.split_aggregation", lambda *_: None)
    run(job)
    assert len(readings.held) >= 4
    assert readings.grown < PART_BYTES // 2, readings.held
