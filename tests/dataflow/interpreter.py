"""Carries out a JobPlan in this process, with simulated partitions: what a cluster must answer, without a cluster.

It splits, shuffles and cuts into morsels as finely as it can, so that a plan which is right only on one task or in one
batch is found out. It shares with the agents nothing but `sabot.dataflow`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import cloudpickle
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from sabot.dataflow.dataset import Dataset
from sabot.dataflow.execution import (
    MorselSegment,
    apply_table_step,
    from_wire,
    partition_step,
    pipeline_steps,
    schema_after,
    segments,
    to_wire,
    wire_schema,
)
from sabot.dataflow.expressions import project_table
from sabot.dataflow.function_steps import MapPartitions
from sabot.dataflow.learned_schema import SchemaProbe, no_rows
from sabot.dataflow.partition_function import one_batch
from sabot.dataflow.persisted import persisted_pieces
from sabot.dataflow.persisted_dataset import PersistedDataset
from sabot.dataflow.plan import Node, TableNode, tables_of
from sabot.dataflow.planner import plan_job
from sabot.dataflow.quarantine import failure_of
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle
from sabot.dataflow.sampling import Draws
from sabot.dataflow.session_protocol import JobProtocol
from sabot.dataflow.splits import splits_of
from sabot.dataflow.stage import (
    Aggregate,
    BroadcastJoin,
    BroadcastShuffle,
    Draw,
    FilesSplit,
    HashShuffle,
    JobPlan,
    Join,
    PartitionSplit,
    RoundRobinShuffle,
    Shuffle,
    ShuffleInput,
    Split,
    Stage,
    TablePiece,
    TableSplit,
    WriteOutput,
)
from sabot.errors import UsageError


class InterpreterSession:
    """A session whose jobs run here; `plans` are those it has run."""

    def __init__(
        self,
        *,
        partitions: int = 3,
        pieces: int = 3,
        morsel_rows: int = 2,
        broadcast_bytes_max: int = 0,
        move_filters: bool = True,
    ) -> None:
        self.move_filters = move_filters
        self.broadcast_bytes_max = broadcast_bytes_max
        self.partitions = partitions
        self.pieces = pieces
        self.morsel_rows = morsel_rows
        self.plans: list[JobPlan] = []
        self.results: list[InterpretedResult] = []
        self.kept: dict[str, list[pa.Table]] = {}

    def from_table(self, table: pa.Table) -> Dataset:
        return Dataset(self, TableNode(table_id=f"t{id(table)}", table=table))

    def run(
        self,
        root: Node,
        *,
        output: WriteOutput | None = None,
        timeout_s: float | None = None,
        progress: bool | None = None,
    ) -> InterpretedResult:
        plan = plan_job(
            root,
            job_id="job",
            output=output,
            broadcast_bytes_max=self.broadcast_bytes_max,
            move_filters=self.move_filters,
        )
        tables = tables_of(root)
        uploads = {table_id: self._pieces(table) for table_id, table in tables.items()}
        uploads.update(persisted_pieces(root))
        travelled: JobPlan = cloudpickle.loads(cloudpickle.dumps(replace(plan, uploads=uploads)))
        self.plans.append(travelled)
        name = f"{len(self.results)}/result"
        result = InterpretedResult(root.schema, _Interpreter(self, travelled, tables).run(), name)
        self.kept[name] = result.partitions
        self.results.append(result)
        return result

    def analyze(self, root: Node) -> str:
        raise NotImplementedError("nothing here is measured")

    def learn_schema(self, probe: SchemaProbe, schema: pa.Schema) -> pa.Schema:
        try:
            answer: pa.RecordBatch = probe(no_rows(schema))
        except Exception as error:
            raise probe.failed(error) from error
        return answer.schema

    def persist(self, root: Node, *, timeout_s: float | None = None) -> PersistedDataset:
        return PersistedDataset(self, root, self.run(root))

    def submit(self, root: Node, *, output: WriteOutput | None = None, timeout_s: float | None = None) -> JobProtocol:
        raise NotImplementedError("nothing here runs while the test goes on")

    def _pieces(self, table: pa.Table) -> tuple[TablePiece, ...]:
        rows = -(-table.num_rows // self.pieces)
        counts = [min(rows, max(0, table.num_rows - rows * index)) for index in range(self.pieces)]
        return tuple(TablePiece(index=index, flight_address="here", rows=count) for index, count in enumerate(counts))


class InterpretedResult:
    quarantines = ()

    def __init__(self, schema: pa.Schema, tables: Sequence[pa.Table], name: str) -> None:
        self._name = name
        self._table = pa.concat_tables(tables)
        assert self._table.schema.equals(schema), f"{self._table.schema} is not {schema}"
        self.partitions = list(tables)
        self.closed = False

    def to_table(self) -> pa.Table:
        return self._table

    def pieces(self) -> tuple[TablePiece, ...]:
        if self.closed:
            raise UsageError("the result cannot be read: it was closed")
        return tuple(
            TablePiece(index=index, flight_address="here", rows=table.num_rows, result=self._name)
            for index, table in enumerate(self.partitions)
        )

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        return iter(self._table.to_batches(max_chunksize=2))

    def close(self) -> None:
        self.closed = True


class _Interpreter:
    def __init__(self, session: InterpreterSession, plan: JobPlan, tables: dict[str, pa.Table]) -> None:
        self._session = session
        self._plan = plan
        self._tables = tables
        self._shuffles: dict[int, list[list[pa.RecordBatch]]] = {}

    def run(self) -> list[pa.Table]:
        results: list[pa.Table] = []
        for stage in self._plan.stages:
            counts = {self._count(stage_id) for stage_id in _input_ids(stage)}
            assert len(counts) <= 1, "both sides of a join have the same number of partitions"
            splits = splits_of(stage, self._plan, num_partitions=next(iter(counts), None), split_bytes=1 << 20, slots=2)
            ranged: list[pa.RecordBatch] = []
            for task, split in enumerate(splits):
                batches = [to_wire(batch) for batch in self._task_rows(stage, task, split).to_batches()]
                on_wire = wire_schema(stage.schema)
                assert all(batch.schema.equals(on_wire, check_metadata=True) for batch in batches)
                if isinstance(stage.output, HomeShuffle):
                    self._shuffles.setdefault(stage.stage_id, []).append(batches)
                elif isinstance(stage.output, RangeShuffle):
                    ranged += batches
                elif isinstance(stage.output, Shuffle):
                    self._shuffle(stage, task, batches)
                else:
                    results.append(from_wire(pa.Table.from_batches(batches, on_wire), stage.schema))
            if isinstance(stage.output, RangeShuffle):
                self._cut(stage, stage.output, pa.Table.from_batches(ranged, wire_schema(stage.schema)))
        return results

    def _cut(self, stage: Stage, output: RangeShuffle, rows: pa.Table) -> None:
        """Ranges of exactly as many rows each; equal keys lie in several where they are many, in the order of tasks."""
        order = pc.sort_indices(rows.select(output.keys), sort_keys=list(output.sorting)).to_pylist()
        partitions: list[list[int]] = [[] for _ in range(self._count(stage.stage_id))]
        for rank, row in enumerate(order):
            partitions[rank * len(partitions) // len(order)].append(row)
        self._shuffles[stage.stage_id] = [
            rows.take(pa.array(sorted(part), pa.int64())).to_batches(max_chunksize=1) for part in partitions
        ]

    def _count(self, stage_id: int) -> int:
        output = self._plan.stages[stage_id].output
        assert isinstance(output, Shuffle)
        if isinstance(output, HomeShuffle):
            return len(self._shuffles[stage_id])
        if isinstance(output, RangeShuffle):
            return self._session.partitions
        if isinstance(output, BroadcastShuffle) or (isinstance(output, HashShuffle) and not output.keys):
            return 1
        assert isinstance(output, HashShuffle | RoundRobinShuffle)
        return output.num_partitions or self._session.partitions

    def _shuffle(self, stage: Stage, task: int, batches: Sequence[pa.RecordBatch]) -> None:
        partitions = self._shuffles.setdefault(stage.stage_id, [[] for _ in range(self._count(stage.stage_id))])
        keys = stage.output.keys if isinstance(stage.output, HashShuffle) else ()
        for batch in batches:
            for row in range(batch.num_rows):
                if isinstance(stage.output, RoundRobinShuffle):
                    owner = task + row
                else:
                    owner = hash(tuple(_canonical(batch.column(key)[row].as_py()) for key in keys))
                partitions[owner % len(partitions)].append(batch.slice(row, 1))

    def _task_rows(self, stage: Stage, task: int, split: Split) -> pa.Table:
        tables = self._read(stage, split)
        if len(tables) > 1 and not isinstance(next(iter(stage.steps), None), Join):
            tables = [pa.concat_tables(tables)]
        for segment in segments(stage.steps):
            if isinstance(segment, MorselSegment):
                (table,) = tables
                tables = [self._through(segment, table)]
            elif isinstance(segment, Draw):
                tables = [Draws(segment, task).add_to(tables[0], segment.name)]
            elif isinstance(segment, Aggregate) and segment.each_row is not None:
                tables = [_grouped_in_part(segment, tables[0])]
            elif isinstance(segment, MapPartitions):
                tables = [_partition(segment, *tables)]
            elif isinstance(segment, BroadcastJoin):
                (table,) = tables
                tables = [self._joined_with_copy(segment, table)]
            else:
                tables = [apply_table_step(segment, tables)]
        (table,) = tables
        return table

    def _read(self, stage: Stage, split: Split) -> list[pa.Table]:
        match split:
            case TableSplit(piece=TablePiece(index=index, result=str(name))):
                return [self._session.kept[name][index]]
            case TableSplit():
                start = sum(piece.rows for piece in self._plan.uploads[split.table_id][: split.piece.index])
                return [self._tables[split.table_id].slice(start, split.piece.rows)]
            case FilesSplit():
                return [_read_files(stage, split)]
            case PartitionSplit():
                return [self._sent(stage_id, split.partition) for stage_id in _input_ids(stage)]

    def _sent(self, stage_id: int, partition: int) -> pa.Table:
        schema = self._plan.stages[stage_id].schema
        partitions = self._shuffles.get(stage_id)
        batches = partitions[partition] if partitions else []
        return from_wire(pa.Table.from_batches(batches, wire_schema(schema)), schema)

    def _joined_with_copy(self, step: BroadcastJoin, table: pa.Table) -> pa.Table:
        copy = self._sent(step.stage_id, 0)
        pieces = [
            table.slice(row, self._session.morsel_rows) for row in range(0, len(table), self._session.morsel_rows)
        ]
        joined = [
            apply_table_step(step.join, [piece, copy] if step.side == 1 else [copy, piece])
            for piece in pieces or [table]
        ]
        return pa.concat_tables(joined)

    def _through(self, segment: MorselSegment, table: pa.Table) -> pa.Table:
        answers: list[pa.RecordBatch | None] = []
        if segment.batch_rows is not None:
            table = table.combine_chunks()
        for batch in table.to_batches(max_chunksize=segment.batch_rows or self._session.morsel_rows):
            answer: pa.RecordBatch | None = batch
            for kind, *arguments in pipeline_steps(segment.steps):
                if answer is not None:
                    answer = _step(kind, arguments, answer)
                if answer is not None and failure_of(answer) is not None:
                    answer = None
            answers.append(answer)
        schema = schema_after(segment, table.schema)
        rows = [pa.RecordBatch.from_arrays(answer.columns, schema=schema) for answer in answers if answer is not None]
        return pa.Table.from_batches(rows, schema=schema)


def _grouped_in_part(step: Aggregate, table: pa.Table) -> pa.Table:
    """Half of the rows grouped, the others each a group of its own, as a task that gives up grouping has them."""
    assert step.each_row is not None
    half = table.num_rows // 2
    groups = apply_table_step(step, [table.slice(0, half)])
    single = project_table(table.slice(half), step.each_row.names, step.each_row.expressions)
    return pa.concat_tables([groups, pa.Table.from_arrays(single.columns, schema=groups.schema)])


def _partition(step: MapPartitions, table: pa.Table) -> pa.Table:
    empty = step.schema.empty_table()
    if not table.num_rows:
        return empty
    answer = _step(*_split_step(partition_step(step)), one_batch(table, "a partition"))
    return empty if answer is None else pa.Table.from_batches([answer])


def _split_step(step: tuple[Any, ...]) -> tuple[str, Sequence[Any]]:
    return step[0], step[1:]


def _step(kind: str, arguments: Sequence[Any], batch: pa.RecordBatch) -> pa.RecordBatch | None:
    match kind:
        case "worker":
            return arguments[0].load()(batch)
        case "filter":
            answer = pa.table(batch).filter(arguments[0])
        case "project":
            answer = project_table(pa.table(batch), arguments[0], arguments[1])
        case _:
            answered: pa.RecordBatch | None = arguments[0](batch)
            return answered
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in answer.columns], schema=answer.schema)


def _input_ids(stage: Stage) -> tuple[int, ...]:
    return stage.input.stage_ids if isinstance(stage.input, ShuffleInput) else ()


def _canonical(value: object) -> object:
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def _read_files(stage: Stage, split: FilesSplit) -> pa.Table:
    source = stage.input
    columns = None if source.columns is None else list(source.columns)
    tables = [source.schema.empty_table()]
    for part in split.parts:
        if source.format == "csv":
            table = ds.dataset(part.file.path, format="csv").to_table(columns=columns, use_threads=False)
        else:
            with pq.ParquetFile(part.file.path) as file:
                table = file.read_row_groups(list(part.row_groups), columns=columns, use_threads=False)
            assert table.num_rows == part.rows
        tables.append(table.select(source.schema.names).cast(source.schema))
    return pa.concat_tables(tables)
