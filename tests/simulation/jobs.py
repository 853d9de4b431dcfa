"""Jobs small enough to be known whole: rows are numbers, each of which is in every stage once.

A stage passes on what it reads under other keys, and a join of two inputs is both of them, so that what every partition
of every shuffle must hold is known before anything runs. A stage with a user's function marks its rows, otherwise in
every attempt, so that it places them otherwise, too: of its rows it is known that each is somewhere once.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import pyarrow as pa

from sabot.agent.coordination.job_events import StartTask
from sabot.agent.coordination.range_choice import Ranges
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle, SortKey
from sabot.dataflow.splits import home_partition, home_tasks
from sabot.dataflow.stage import (
    BroadcastJoin,
    BroadcastShuffle,
    FilesSplit,
    HashShuffle,
    JobPlan,
    Join,
    MapBatches,
    Output,
    ResultOutput,
    ScanInput,
    ShuffleInput,
    SourceFile,
    Split,
    Stage,
    TableInput,
    TablePiece,
    TableSplit,
    WriteOutput,
)
from sabot.native._native import mix
from sabot.wire.member import Member

SCHEMA = pa.schema([("row", pa.int64())])
PARTED_SCHEMA = pa.schema([("row", pa.int64()), ("part", pa.int64())])
"""Of rows that go into a folder for each `part_of` them."""
ROWS_PER_SPLIT = 100  # a split's rows are numbered from its number times this
SUM_MASK = (1 << 64) - 1
WRITING_SHARE = 0.15
COPYING_SHARE = 0.2
JOINING_SHARE = 0.5  # of jobs with two sources
PARTING_SHARE = 0.4  # of jobs that write
CONTENDING_SHARE = 0.3  # likewise
MARK = 1_000_000  # what a function has made of a row is the row plus a multiple of this
HOT_ROWS = 60_000  # from here on odd rows have one key
_COUNTS = (0, 1, 5, 9, 20)  # of the rows of a file
Rows = tuple[int, ...]
Attempts = list[tuple[int, int]]  # task and attempt


def part_of(row: int) -> int:
    """Which folder of a parted dataset has the row."""
    return row % MARK % 3


def batch_of(rows: Rows, schema: pa.Schema) -> pa.RecordBatch:
    """As a stage gives them."""
    columns = {"row": rows, "part": [part_of(row) for row in rows]}
    return pa.record_batch([pa.array(columns[name], pa.int64()) for name in schema.names], schema=schema)


@lru_cache(maxsize=1 << 18)
def content(stage_id: int, row: int) -> tuple[int, int]:
    """The key hash of a row in a stage's shuffle, and its part of the content sum."""
    key_hash = mix(stage_id + 1, HOT_ROWS if row % MARK >= HOT_ROWS and row % 2 else row // 2)
    return key_hash, mix(key_hash, row)


def partition_of(stage_id: int, row: int, num_partitions: int) -> int:
    return (content(stage_id, row)[0] * num_partitions) >> 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """How an attempt places its rows in the shuffle of its stage."""

    stage: Stage
    num_partitions: int
    task: int = 0
    tasks: int = 1
    boundaries: tuple[int, ...] = ()

    def partition_of(self, row: int) -> int:
        match self.stage.output:
            case HomeShuffle():
                return home_partition(self.task, tasks=self.tasks, num_partitions=self.num_partitions)
            case RangeShuffle():
                return bisect_right(self.boundaries, row)
        return partition_of(self.stage.stage_id, row, self.num_partitions)

    @property
    def copies(self) -> int:
        """How often each row is sent."""
        return self.num_partitions if isinstance(self.stage.output, BroadcastShuffle) else 1

    def partitions_of(self, row: int) -> Sequence[int]:
        return (self.partition_of(row),) if self.copies == 1 else range(self.copies)

    def strays(self, rows: list[int], partition: int) -> bool:
        """Whether a reader sees that one of the rows does not belong there: by its hash, where that has placed it."""
        if not isinstance(self.stage.output, HashShuffle):
            return False
        stage_id, count = self.stage.stage_id, self.num_partitions
        return any(partition_of(stage_id, row, count) != partition for row in rows)


def boundaries_of(ranges: Ranges | None) -> tuple[int, ...]:
    return () if ranges is None else _boundaries_in(ranges.boundaries)


@lru_cache(maxsize=1 << 10)
def _boundaries_in(stream: bytes) -> tuple[int, ...]:
    return tuple(pa.ipc.open_stream(stream).read_all()["row"].to_pylist())


def sample_of(rows: Rows) -> bytes:
    """What a task tells of its keys: all of them."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(pa.table([pa.array(rows, pa.int64())], SCHEMA))
    return bytes(sink.getvalue())


def rows_of_split(split: Split) -> Rows:
    """The rows of a file or of a piece of a table; files are named by their first row."""
    match split:
        case FilesSplit(parts=parts):
            return tuple(int(part.file.path) + row for part in parts for row in range(part.rows or 0))
        case TableSplit(table_id=table_id, piece=piece):
            first = int(table_id) + piece.index * ROWS_PER_SPLIT
            return tuple(range(first, first + piece.rows))
    raise AssertionError(split)


def calls_function(stage: Stage) -> bool:
    return any(isinstance(step, MapBatches) for step in stage.steps)


def joins(stage: Stage) -> bool:
    """Whether it passes on the left one of its two inputs, every row of which is in the right one for all it knows."""
    return isinstance(stage.steps[0], Join) if stage.steps else False


class Expected:
    """What a job must come to."""

    def __init__(self, plan: JobPlan) -> None:
        self.num_partitions: dict[int, int] = {}  # of each shuffle, once known
        self._rows: dict[int, frozenset[int]] = {}
        self._marked: set[int] = set()  # stages of whose rows the marks are not known
        for stage in plan.stages:
            match stage.input:
                case ScanInput(files=files):
                    rows = {int(file.path) + row for file in files for row in range(sum(file.row_group_rows))}
                case TableInput(table_id=table_id):
                    pieces = plan.uploads[table_id]
                    rows = {row for p in pieces for row in rows_of_split(TableSplit(table_id=table_id, piece=p))}
                case ShuffleInput(stage_ids=stage_ids):
                    stage_ids = stage_ids[:1] if joins(stage) else stage_ids
                    rows = {row for stage_id in stage_ids for row in self._rows[stage_id]}
            self._rows[stage.stage_id] = frozenset(rows)
            reads = stage.input.stage_ids if isinstance(stage.input, ShuffleInput) else ()
            if calls_function(stage) or not self._marked.isdisjoint(reads):
                self._marked.add(stage.stage_id)
        self._plan = plan
        self._parts: dict[tuple[int, int], dict[int, list[int]]] = {}
        self._boundaries: dict[int, tuple[int, ...]] = {}  # of range shuffles, as the first attempt was told
        self._tasks: dict[int, int] = {}  # of each stage, likewise
        self._read: dict[tuple[int, int], frozenset[int]] = {}  # by stage and task
        self._epoch = 0  # from when on attempts count

    def taken_over(self, epoch: int, begun: Collection[int]) -> None:
        """By a coordinator that knows only of the stages `begun`: it may cut the others otherwise."""
        self._epoch = epoch
        for stage_id in {stage.stage_id for stage in self._plan.stages}.difference(begun):
            self._boundaries.pop(stage_id, None)
            self._tasks.pop(stage_id, None)
            self._parts = {key: parts for key, parts in self._parts.items() if key[0] != stage_id}
            self._read = {key: rows for key, rows in self._read.items() if key[0] != stage_id}

    def told(self, command: StartTask) -> bool:
        """An attempt is to send by these boundaries; whether all before it were, too."""
        if command.epoch < self._epoch:
            return True
        boundaries = boundaries_of(command.ranges)
        self._tasks[command.stage_id] = command.tasks
        return self._boundaries.setdefault(command.stage_id, boundaries) == boundaries

    def read(self, command: StartTask, rows: Rows) -> bool:
        """An attempt has these rows; whether all before it had, where they had to."""
        stage_id, task = command.stage_id, command.task
        if command.epoch < self._epoch:
            return True
        stage = self._plan.stages[stage_id]
        if isinstance(stage.input, ShuffleInput) and not all(self.knows(sender) for sender in stage.input.stage_ids):
            return True
        found = frozenset(rows)
        return self._read.setdefault((stage_id, task), found) == found

    def rows(self, stage_id: int) -> list[int]:
        """Without their marks."""
        return sorted(self._rows[stage_id])

    def knows(self, stage_id: int) -> bool:
        """Whether it is known which rows a partition of the stage's shuffle should hold."""
        return stage_id not in self._marked

    def partition(
        self, stage_id: int, partition: int, num_partitions: int, tasks: Sequence[int] | None = None
    ) -> list[int]:
        """The rows of a partition of a stage's shuffle, in order; those that `tasks` send to it."""
        stage = self._plan.stages[stage_id]
        if isinstance(stage.output, HomeShuffle):
            return self._of_tasks(stage, partition, num_partitions)
        if tasks is not None and len(tasks) < self._tasks[stage_id]:
            sent = frozenset[int]().union(*(self._read[stage_id, task] for task in tasks))
            return [row for row in self.partition(stage_id, partition, num_partitions) if row in sent]
        if isinstance(stage.output, BroadcastShuffle):
            return self.rows(stage_id)
        parts = self._parts.get((stage_id, num_partitions))
        if parts is None:
            parts = self._parts[stage_id, num_partitions] = {}
            placing = Placing(stage=stage, num_partitions=num_partitions, boundaries=self._boundaries.get(stage_id, ()))
            for row in self.rows(stage_id):
                parts.setdefault(placing.partition_of(row), []).append(row)
        return parts.get(partition, [])

    def _of_tasks(self, stage: Stage, partition: int, num_partitions: int) -> list[int]:
        """What tasks of a home stage read, which is one partition of its shuffle: more than one where some of them have
        shares of a partition.
        """
        assert isinstance(stage.input, ShuffleInput)
        tasks = home_tasks(partition, tasks=self._tasks[stage.stage_id], num_partitions=num_partitions)
        if joins(stage):
            return sorted(row for task in tasks for row in self._read[stage.stage_id, task])
        (task,) = tasks
        rows = [
            row
            for stage_id in stage.input.stage_ids
            for row in self.partition(stage_id, task, self.num_partitions[stage_id])
        ]
        return sorted(rows)


def make_plan(
    rng: random.Random,
    job_id: str,
    agents: list[Member],
    folder: Callable[..., str],
    *,
    writes: bool | None = None,
    copies: bool | None = None,
    hot: bool | None = None,
) -> JobPlan:
    """Perhaps a stage of which all agents get a copy, that another one looks at. One to two sources, a shuffle of each,
    perhaps a join, perhaps another shuffle or a sort, and the answer: files in a `folder` or partitions. `hot`: two
    sources whose rows are joined, so that a hot partition is read by several tasks; None: where there are two they may.
    """
    sides = 2 if hot else rng.choice((1, 1, 2))
    count = rng.randint(2, 12) if rng.random() < 0.7 else None
    uploads: dict[str, tuple[TablePiece, ...]] = {}
    stages: list[Stage] = []
    if rng.random() < COPYING_SHARE if copies is None else copies:
        copied = BroadcastShuffle(keys=("row",), bytes_estimated=1, bytes_max=1)
        stages.append(_stage(0, _files(rng, 50_000), copied, function=rng.random() < 0.2))
    first_side = len(stages)
    for side in range(first_side, first_side + sides):
        source: ScanInput | TableInput
        first = HOT_ROWS if hot and side == first_side else side * 10_000
        if rng.random() < 0.2:
            uploads[str(first)] = tuple(
                TablePiece(index=i, flight_address=rng.choice(agents).flight_address, rows=rng.randint(0, 10))
                for i in range(rng.randint(1, 3))
            )
            source = TableInput(table_id=str(first), schema=SCHEMA)
        else:
            source = _files(rng, first, (0, 1, 5) if hot and side > first_side else _COUNTS)
        stages.append(
            _stage(side, source, HashShuffle(keys=("row",), num_partitions=count), function=rng.random() < 0.2)
        )
    reads = ShuffleInput(stage_ids=tuple(range(first_side, len(stages))))
    if rng.random() < 0.4:
        keys = ("row",) if rng.random() < 0.7 else ()
        stages.append(_stage(len(stages), reads, HashShuffle(keys=keys), function=rng.random() < 0.2))
        reads = ShuffleInput(stage_ids=(len(stages) - 1,))
    if rng.random() < 0.3:
        home = len(stages)
        sorting: tuple[SortKey, ...] = (("row", "ascending"),)
        stages.append(_stage(home, reads, HomeShuffle(sample_keys=("row",)), function=rng.random() < 0.2))
        ranged = RangeShuffle(sorting=sorting, sampled_by=(home,))
        stages.append(_stage(home + 1, ShuffleInput(stage_ids=(home,)), ranged))
        reads = ShuffleInput(stage_ids=(home + 1,))
    output = _last_output(rng, job_id, folder, writes)
    parted = isinstance(output, WriteOutput) and bool(output.partitioning)
    last = _stage(len(stages), reads, output)
    stages.append(replace(last, schema=PARTED_SCHEMA) if parted else last)
    if hot or (hot is None and sides == 2 and rng.random() < JOINING_SHARE):
        join = Join(keys=("row",), right_keys=("row",), join_type="left semi")
        first_reader = first_side + sides
        stages[first_reader] = replace(stages[first_reader], steps=(join, *stages[first_reader].steps))
    if first_side:
        reader = rng.randrange(first_side, len(stages))
        with_copy = BroadcastJoin(join=Join(keys=("row",), right_keys=("row",), join_type="inner"), stage_id=0, side=1)
        stages[reader] = replace(stages[reader], steps=(*stages[reader].steps, with_copy))
    return JobPlan(job_id=job_id, stages=tuple(stages), uploads=uploads)


def _last_output(
    rng: random.Random, job_id: str, folder: Callable[..., str], writes: bool | None
) -> ResultOutput | WriteOutput:
    if not (rng.random() < WRITING_SHARE if writes is None else writes):
        return ResultOutput()
    earlier = rng.random() < 0.4
    output = WriteOutput(
        folder="",
        format="parquet",
        existing_data_behavior="delete_matching" if earlier else "error",
        max_rows_per_file=rng.choice((0, 7)),
    )
    if rng.random() < PARTING_SHARE:
        hive = rng.random() < 0.5
        output = replace(
            output,
            partitioning=("part",),
            partitioning_flavor="hive" if hive else None,
            max_open_files=rng.choice((1, 128)),
        )
    return replace(output, folder=folder(job_id, earlier=place_of(output, 0) if earlier else None))


def place_of(output: WriteOutput, row: int) -> str:
    """In which folder of the dataset the row belongs."""
    if not output.partitioning:
        return ""
    return f"part={part_of(row)}" if output.partitioning_flavor == "hive" else str(part_of(row))


def contending(rng: random.Random, plan: JobPlan, other: JobPlan) -> JobPlan:
    """`other`, which writes to the folder of `plan` in its own way."""
    *before, last = other.stages
    output = plan.stages[-1].output
    assert isinstance(output, WriteOutput)
    if rng.random() < 0.5:
        other_name = replace(output, existing_data_behavior="overwrite_or_ignore", basename_template="other-{i}")
        output = rng.choice((other_name, replace(output, existing_data_behavior="delete_matching")))
    return replace(other, stages=(*before, replace(last, output=output, schema=plan.stages[-1].schema)))


def _files(rng: random.Random, first: int, rows: Sequence[int] = _COUNTS) -> ScanInput:
    """Files of one row group, so that each is a task of its own."""
    counts = [rng.choice(rows) for _ in range(rng.randint(1, 5))]
    files = tuple(
        SourceFile(
            path=str(first + i * ROWS_PER_SPLIT),
            size_bytes=1,
            modified_ns=1,
            row_group_rows=(rows,),
            row_group_bytes=(1,),
        )
        for i, rows in enumerate(counts)
    )
    return ScanInput(format="parquet", files=files, columns=None, schema=SCHEMA)


def _stage(
    stage_id: int, source: ScanInput | TableInput | ShuffleInput, output: Output, *, function: bool = False
) -> Stage:
    steps = (MapBatches(function=_mark, schema=SCHEMA, name="mark"),) if function else ()
    return Stage(stage_id=stage_id, label=f"stage {stage_id}", input=source, steps=steps, output=output, schema=SCHEMA)


def _mark(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Stands in the plan; what it does is done by the simulator's tasks, which have no batches."""
    return batch
