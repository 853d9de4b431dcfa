"""What a planned job is made of: stages cut at shuffles, their inputs, steps and outputs, and their tasks' splits.

Values only. The planner makes them, the coordinator hands them out, the task runner carries them out; they travel by
cloudpickle between equal versions of Sabot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.function_steps import MapBatches, MapPartitions
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle, SortKey
from sabot.wire.py_modules import PyModules

JoinType = Literal[
    "left semi",
    "right semi",
    "left anti",
    "right anti",
    "inner",
    "left outer",
    "right outer",
    "full outer",
]
FileFormat = Literal["parquet", "csv", "json", "ipc"]
Aggregation = tuple[str | Sequence[str], str] | tuple[str | Sequence[str], str, pc.FunctionOptions | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of a source, pinned: a task refuses it when its size, modification time or etag has changed.

    `row_group_rows` and `row_group_bytes` are there for Parquet; an Arrow IPC file has the bytes of its record batches
    there, which are read as row groups are. A text file may be cut into ranges of lines where `cut_at_lines` says so.
    `partition` are the columns that its path gives, with their values.
    """

    path: str
    size_bytes: int
    modified_ns: int
    row_group_rows: tuple[int, ...] = ()
    row_group_bytes: tuple[int, ...] = ()
    etag: str = ""
    partition: tuple[tuple[str, Any], ...] = ()
    cut_at_lines: bool = False

    @property
    def num_row_groups(self) -> int:
        """How many row groups there are, or record batches."""
        return max(len(self.row_group_rows), len(self.row_group_bytes))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanTotals:
    """What a source has, before a filter has left out files and row groups."""

    files: int
    row_groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanInput:
    """Files that the agents read; `columns` None means all. `schema` is the schema read, after the projection.

    `filesystem` is a pickled pyarrow.fs.FileSystem, empty for the local one; `options` are the reader's own. Of each
    file only `row_groups` are read, where they are not None; `totals` are then those of the whole source.
    """

    format: FileFormat
    files: tuple[SourceFile, ...]
    columns: tuple[str, ...] | None
    schema: pa.Schema
    filesystem: bytes = b""
    options: Mapping[str, Any] = field(default_factory=dict)
    row_groups: tuple[tuple[int, ...], ...] | None = None
    totals: ScanTotals | None = None
    row_bytes: float = 0.0  # the mean in memory; 0: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInput:
    """A table of the client's, uploaded to agents in pieces: see JobPlan.uploads."""

    table_id: str
    schema: pa.Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleInput:
    """The same partition of one shuffle, of two for a join (left, right), or of several for a union."""

    stage_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Keeps the rows for which `expression` is true. Runs per morsel. `passed`: what was below it."""

    expression: pc.Expression
    passed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Replaces the columns by `expressions` named `names`. Runs per morsel."""

    names: tuple[str, ...]
    expressions: tuple[pc.Expression, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """Groups a whole table; `finish` projects the partial columns to the answer's. Runs per task.

    `each_row`, of the half before a shuffle, makes a group of each row: a task where grouping hardly reduces the rows
    goes on with that.
    """

    keys: tuple[str, ...]
    aggregations: tuple[Aggregation, ...]
    finish: Project | None = None
    each_row: Project | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # pyarrow's options have a form of their own to travel in, and none for pickle.
        travelling = tuple(
            (aggregation[0], aggregation[1], None if options is None else options.serialize().to_pybytes())
            for aggregation in self.aggregations
            for options in [aggregation[2] if len(aggregation) > 2 else None]
        )
        return _restore_aggregate, (self.keys, travelling, self.finish, self.each_row)


def _restore_aggregate(
    keys: tuple[str, ...],
    aggregations: tuple[tuple[str | Sequence[str], str, bytes | None], ...],
    finish: Project | None,
    each_row: Project | None,
) -> Aggregate:
    restored: list[Aggregation] = [
        (target, function)
        if options is None
        else (target, function, pc.FunctionOptions.deserialize(pa.py_buffer(options)))
        for target, function, options in aggregations
    ]
    return Aggregate(keys=keys, aggregations=tuple(restored), finish=finish, each_row=each_row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """Joins the two inputs of a ShuffleInput, as pyarrow.Table.join does. Runs per partition.

    Rows whose keys are equal match only where `filter_expression`, over the columns of both sides, is true.
    """

    keys: tuple[str, ...]
    right_keys: tuple[str, ...]
    join_type: JoinType
    left_suffix: str | None = None
    right_suffix: str | None = None
    coalesce_keys: bool = True
    filter_expression: pc.Expression | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastJoin:
    """Joins the task's rows, some at a time, with a copy of all rows of stage `stage_id`: side `side` of the join (0
    left, 1 right), which gives no row for itself. Every agent has a copy.
    """

    join: Join
    stage_id: int
    side: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """Sorts a whole table, stably, by (name, order) or (name, order, null placement). Runs per task."""

    sorting: tuple[SortKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The first `rows` rows of the task. Runs per task; makes the task's reading partial."""

    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Appends a column: a random number from [0, 1) for each row, by `seed`, the task and the row's place in it."""

    name: str
    seed: int


MorselStep = Filter | Project | MapBatches
TableStep = Aggregate | Join | Sort | Head
Step = MorselStep | MapPartitions | TableStep | BroadcastJoin | Draw


@dataclass(frozen=True, slots=True, kw_only=True)
class HashShuffle:
    """Rows go to the partition of their keys' hash; no keys: partition 0 of 1. None: the coordinator chooses."""

    keys: tuple[str, ...]
    num_partitions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRobinShuffle:
    """Rows are dealt out in turn."""

    num_partitions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastShuffle:
    """Every agent gets all rows: partition i is the copy of the job's agent i. `keys` are what they are joined by;
    `bytes_estimated` is what the planner holds against `bytes_max`.
    """

    keys: tuple[str, ...]
    bytes_estimated: int
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOutput:
    """The job's answer: each task's rows stay with its agent until the client has fetched them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOutput:
    """Each task writes files; all appear in `folder` when the job has succeeded, none before.

    The columns `partitioning` are not in the files but in the names of folders: `key=value` where the flavor is "hive",
    else values alone. `file_options` are those of pyarrow's writer of the format; `filesystem` the client resolves.
    """

    folder: str
    format: Literal["parquet", "csv", "ipc"]
    partitioning: tuple[str, ...] = ()
    partitioning_flavor: Literal["hive"] | None = "hive"
    basename_template: str = "part-{i}"
    existing_data_behavior: Literal["error", "overwrite_or_ignore", "delete_matching"] = "error"
    max_rows_per_file: int = 0  # 0: any number
    max_rows_per_group: int | None = None
    max_open_files: int = 128
    file_options: Mapping[str, Any] = field(default_factory=dict)
    filesystem: Any = None


Shuffle = HashShuffle | RoundRobinShuffle | BroadcastShuffle | HomeShuffle | RangeShuffle
Output = Shuffle | ResultOutput | WriteOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Steps between two shuffles. `schema` is what the steps give, dictionaries included; `label` is for people."""

    stage_id: int
    label: str
    input: ScanInput | TableInput | ShuffleInput
    steps: tuple[Step, ...]
    output: Output
    schema: pa.Schema

    @property
    def copied(self) -> tuple[int, ...]:
        """The stages of whose rows every task reads a copy, in the order of its steps."""
        return tuple(step.stage_id for step in self.steps if isinstance(step, BroadcastJoin)) if self.steps else ()

    @property
    def reads(self) -> tuple[int, ...]:
        """The stages whose shuffles the stage reads: those of its input, then those that are copied."""
        inputs = self.input.stage_ids if isinstance(self.input, ShuffleInput) else ()
        return (*inputs, *self.copied)

    @property
    def waits_for(self) -> tuple[int, ...]:
        """The stages that must be done before it starts: those read, and those by whose samples its ranges are cut."""
        return (*self.reads, *self.output.sampled_by) if isinstance(self.output, RangeShuffle) else self.reads


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePiece:
    """Part of an uploaded table on the agent with this Flight address; `index` orders the pieces.

    Or a partition of an earlier job's result, which is published there under `result`.
    """

    index: int
    flight_address: str
    rows: int
    result: str | None = None

    def __str__(self) -> str:
        if self.result is None:
            return f"piece {self.index} of an uploaded table"
        return f"partition {self.index} of a persisted dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """Stages, each after its inputs; the last one has the job's ResultOutput or WriteOutput."""

    job_id: str
    stages: tuple[Stage, ...]
    uploads: dict[str, tuple[TablePiece, ...]] = field(default_factory=dict)
    py_modules: PyModules | None = None
    weight: float = 1.0  # its part of the slots' time, next to other jobs'

    @property
    def results_read(self) -> frozenset[str]:
        """The ids of the jobs whose results this one reads."""
        pieces = (piece for pieces in self.uploads.values() for piece in pieces)
        return frozenset(piece.result.partition("/")[0] for piece in pieces if piece.result is not None)

    @property
    def needs_workers(self) -> bool:
        """Whether a function of the user's is to be called in worker processes."""
        return any(
            isinstance(step, MapBatches | MapPartitions) and step.processes
            for stage in self.stages
            for step in stage.steps
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """Row groups of a Parquet file or record batches of an IPC file, the lines of a text file that begin in
    `byte_range`, or, where both are None, a whole file. `rows` is what it must yield, if known.
    """

    file: SourceFile
    row_groups: tuple[int, ...] | None
    rows: int | None
    byte_range: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSplit:
    parts: tuple[FilePart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSplit:
    table_id: str
    piece: TablePiece


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One of `count` parts of a hot partition that is joined. `rows` are about how many it has of each input.

    Of input `side` (0 left, 1 right) it has what every `count`th task sent, from task `index` on: a replay of a task
    has the same rows, whatever its chunks are. It has a copy of the other input. One of one is the whole partition, of
    any number of inputs, read by another agent than its owner.
    """

    index: int
    count: int
    side: int
    rows: tuple[int, ...]

    def of_side(self, side: int) -> tuple[int, int]:
        """Which part of that input's tasks, of how many."""
        return (self.index, self.count) if side == self.side else (0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSplit:
    """A partition, or a share of one."""

    partition: int
    share: Share | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSplit:
    """What earlier attempts of the task itself sent to the agent that runs it, which is about to leave: by attempt the
    partitions. Their rows are sent on as they are.
    """

    sent: tuple[tuple[int, frozenset[int]], ...]


Split = FilesSplit | TableSplit | PartitionSplit | StoredSplit


def shuffle_id(job_id: str, stage_id: int) -> str:
    """The id of the shuffle that a stage writes."""
    return f"{job_id}/{stage_id}"
