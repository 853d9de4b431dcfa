"""Cutting a logical plan into stages at its shuffles.

Pure: the same plan gives the same stages. How many partitions a shuffle has is the coordinator's choice, unless
`repartition` named a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from sabot.dataflow.aggregation import split_aggregation
from sabot.dataflow.broadcasts import side_to_copy
from sabot.dataflow.columns import plain_schema
from sabot.dataflow.distinct_counts import as_count_of_groups
from sabot.dataflow.estimates import row_bytes
from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.expressions import project_schema
from sabot.dataflow.filter_moving import with_filters_moved
from sabot.dataflow.function_nodes import MapBatchesNode, MapPartitionsNode
from sabot.dataflow.function_steps import MapBatches, MapPartitions
from sabot.dataflow.persisted import PersistedNode
from sabot.dataflow.plan import (
    AggregateNode,
    FilterNode,
    HeadNode,
    JoinNode,
    Node,
    ProjectNode,
    RepartitionNode,
    ScanNode,
    SortNode,
    TableNode,
)
from sabot.dataflow.pruning import pruned
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle, SortKey
from sabot.dataflow.sampling import DrawNode
from sabot.dataflow.skipping import without_excluded
from sabot.dataflow.sorting import range_sorting
from sabot.dataflow.stage import (
    Aggregate,
    BroadcastJoin,
    BroadcastShuffle,
    Filter,
    HashShuffle,
    JobPlan,
    Output,
    Project,
    ResultOutput,
    RoundRobinShuffle,
    ScanInput,
    ShuffleInput,
    Stage,
    Step,
    TableInput,
    WriteOutput,
)
from sabot.dataflow.union import UnionNode
from sabot.dataflow.wire_form import check_wire
from sabot.errors import InternalError

_GATHER = HashShuffle(keys=())


def plan_job(
    root: Node,
    *,
    job_id: str,
    output: WriteOutput | None = None,
    broadcast_bytes_max: int = 0,
    move_filters: bool = True,
) -> JobPlan:
    """The stages that compute `root`; its rows become the job's result, or the files of `output`. A side of a join that
    has at most `broadcast_bytes_max` is copied to every agent where that gives the same rows, and the other side stays.
    Filters stay where they are only in tests.
    """
    planner = _Planner(broadcast_bytes_max)
    last = planner.stage_of(pruned(without_excluded(with_filters_moved(root) if move_filters else root)))
    planner.close(last, ResultOutput() if output is None else output)
    return JobPlan(job_id=job_id, stages=tuple(planner.stages))


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenStage:
    """A stage to which steps may still be added; `gathered`: it has one task, which sees all rows.

    The stages `beside` it have the other rows of a union, with the same steps since then.
    """

    input: ScanInput | TableInput | ShuffleInput
    steps: tuple[Step, ...] = ()
    schema: pa.Schema
    label: str
    gathered: bool = False
    beside: tuple[_OpenStage, ...] = ()

    def then(self, *steps: Step, schema: pa.Schema, label: str | None = None) -> _OpenStage:
        beside = tuple(stage.then(*steps, schema=schema) for stage in self.beside)
        return replace(self, steps=(*self.steps, *steps), schema=schema, label=label or self.label, beside=beside)


class _Planner:
    """Closes stages in an order in which each comes after its inputs."""

    def __init__(self, broadcast_bytes_max: int) -> None:
        self.stages: list[Stage] = []
        self._broadcast_bytes_max = broadcast_bytes_max

    def close(self, stage: _OpenStage, output: Output) -> int:
        """Ends the stage with `output` and numbers it; the parts of a union are brought together before."""
        if stage.beside:
            stage = self._shuffled(stage, RoundRobinShuffle(), "union")
        check_wire(stage.schema, stage.label)
        stage_id = len(self.stages)
        self.stages.append(
            Stage(
                stage_id=stage_id,
                label=stage.label,
                input=stage.input,
                steps=stage.steps,
                output=output,
                schema=stage.schema,
            )
        )
        return stage_id

    def stage_of(self, node: Node) -> _OpenStage:  # noqa: PLR0911, PLR0912 - one per kind of node
        """The open stage whose last step gives the node's rows."""
        match node:
            case ScanNode():
                label = f"read {len(node.files)} {node.format} {'file' if len(node.files) == 1 else 'files'}"
                source = ScanInput(
                    format=node.format,
                    files=node.files,
                    columns=node.columns,
                    schema=plain_schema(node.file_schema),
                    filesystem=node.filesystem,
                    options=node.options,
                    row_groups=node.row_groups,
                    totals=node.totals,
                    row_bytes=row_bytes(node),
                )
                return _OpenStage(input=source, schema=node.schema, label=label)
            case TableNode():
                source_table = TableInput(table_id=node.table_id, schema=node.schema)
                return _OpenStage(input=source_table, schema=node.schema, label="read a table")
            case PersistedNode():
                persisted = TableInput(table_id=node.table_id, schema=node.schema)
                return _OpenStage(input=persisted, schema=node.schema, label="read a persisted dataset")
            case FilterNode():
                return self.stage_of(node.child).then(
                    Filter(expression=node.expression, passed=node.passed), schema=node.schema
                )
            case ProjectNode():
                step = Project(names=node.names, expressions=node.expressions)
                return self.stage_of(node.child).then(step, schema=node.schema)
            case MapBatchesNode():
                call = MapBatches(
                    function=node.function,
                    schema=node.schema,
                    name=node.name,
                    batch_rows=node.batch_rows,
                    processes=node.processes,
                    timeout_s=node.timeout_s,
                    on_error=node.on_error,
                    given=node.child.schema,
                )
                return self.stage_of(node.child).then(call, schema=node.schema)
            case DrawNode():
                return self.stage_of(node.child).then(node.step, schema=node.schema)
            case UnionNode():
                return self._union(node)
            case MapPartitionsNode():
                whole = MapPartitions(
                    function=node.function,
                    schema=node.schema,
                    name=node.name,
                    processes=node.processes,
                    timeout_s=node.timeout_s,
                )
                return self.stage_of(node.child).then(whole, schema=node.schema)
            case JoinNode():
                return self._join(node)
            case AggregateNode():
                return self._aggregate(node)
            case SortNode():
                return self._sort(node, [])
            case HeadNode():
                return self._head(node)
            case RepartitionNode():
                return self._repartition(node)
            case _:
                raise InternalError(f"the planner does not know {type(node).__name__}; please report this")

    def _shuffled(self, stage: _OpenStage, output: HashShuffle | RoundRobinShuffle, label: str) -> _OpenStage:
        gathered = output == _GATHER or output.num_partitions == 1
        parts = (replace(stage, beside=()), *stage.beside)
        stage_ids = tuple(self.close(part, output) for part in parts)
        return _OpenStage(input=ShuffleInput(stage_ids=stage_ids), schema=stage.schema, label=label, gathered=gathered)

    def _union(self, node: UnionNode) -> _OpenStage:
        """The parts side by side: they meet at the next shuffle, by which their rows go anyway."""
        opened = [self.stage_of(part) for part in node.parts]
        parts = [replace(part, beside=(), gathered=False) for stage in opened for part in (stage, *stage.beside)]
        return replace(parts[0], beside=tuple(parts[1:]))

    def _join(self, node: JoinNode) -> _OpenStage:
        copied = side_to_copy(node, self._broadcast_bytes_max)
        if copied is not None:
            return self._broadcast_join(node, *copied)
        left = self.close(self.stage_of(node.left), HashShuffle(keys=node.step.keys))
        right = self.close(self.stage_of(node.right), HashShuffle(keys=node.step.right_keys))
        return _OpenStage(
            input=ShuffleInput(stage_ids=(left, right)),
            steps=(node.step,),
            schema=node.schema,
            label=f"join on {', '.join(node.step.keys)}",
        )

    def _broadcast_join(self, node: JoinNode, side: int, size: int) -> _OpenStage:
        """The stage of the other side goes on, with a copy of this one."""
        step = node.step
        keys = (step.keys, step.right_keys)[side]
        output = BroadcastShuffle(keys=keys, bytes_estimated=size, bytes_max=self._broadcast_bytes_max)
        copied = self.close(self.stage_of((node.left, node.right)[side]), output)
        stage = self.stage_of((node.right, node.left)[side])
        return stage.then(
            BroadcastJoin(join=step, stage_id=copied, side=side),
            schema=node.schema,
            label=f"{stage.label}, join on {', '.join(step.keys)}",
        )

    def _aggregate(self, node: AggregateNode) -> _OpenStage:
        counted = as_count_of_groups(node)
        if counted is not None:
            return self.stage_of(counted)
        step, child = node.step, self.stage_of(node.child)
        label = f"group by {', '.join(step.keys)}" if step.keys else "aggregate"
        if child.gathered:
            return child.then(step, schema=node.schema, label=label)
        output = HashShuffle(keys=step.keys)
        split = split_aggregation(step.keys, step.aggregations, child.schema)
        if split is None:
            return self._shuffled(child, output, label).then(step, schema=node.schema)
        if split.before is not None:
            before = project_schema(child.schema, split.before.names, split.before.expressions, "aggregate")
            child = child.then(split.before, schema=before)
        partial = _schema_after(split.partial, child.schema)
        child = child.then(split.partial, schema=partial)
        return self._shuffled(child, output, label).then(split.final, schema=node.schema)

    def _sort(self, node: SortNode, first_rows: Sequence[Step]) -> _OpenStage:
        """Rows in order, and of them the first ones if a Head follows: then each task sends no more than those."""
        stage, steps = self.stage_of(node.child), (node.step, *first_rows)
        label = f"sort by {', '.join(key[0] for key in node.step.sorting)}"
        if stage.gathered:
            return stage.then(*steps, schema=node.schema, label=label)
        sorting = range_sorting(node)
        if first_rows or sorting is None:
            if first_rows:
                stage = stage.then(*steps, schema=node.schema)
            return self._shuffled(stage, _GATHER, label).then(*steps, schema=node.schema, label=label)
        return self._ranged(stage, sorting, f"cut into ranges of {', '.join(key[0] for key in sorting)}").then(
            *steps, schema=node.schema, label=label
        )

    def _ranged(self, stage: _OpenStage, sorting: tuple[SortKey, ...], label: str) -> _OpenStage:
        """The rows of `stage` in partitions that are ranges of `sorting`, one after the other."""
        keys = tuple(key[0] for key in sorting)
        parts = (replace(stage, beside=()), *stage.beside)
        homes = tuple(self.close(part, HomeShuffle(sample_keys=keys)) for part in parts)
        kept = [_OpenStage(input=ShuffleInput(stage_ids=(home,)), schema=stage.schema, label=label) for home in homes]
        output = RangeShuffle(sorting=sorting, sampled_by=homes)
        return replace(kept[0], input=ShuffleInput(stage_ids=tuple(self.close(part, output) for part in kept)))

    def _head(self, node: HeadNode) -> _OpenStage:
        projects: list[ProjectNode] = []
        child = node.child
        while isinstance(child, ProjectNode):  # the first rows may be taken before columns are computed
            projects.append(child)
            child = child.child
        if isinstance(child, SortNode):
            stage = self._sort(child, [node.step])
        else:
            stage = self.stage_of(child).then(node.step, schema=child.schema)
            if not stage.gathered:
                stage = self._shuffled(stage, _GATHER, f"head {node.step.rows}").then(node.step, schema=child.schema)
        for project in reversed(projects):
            stage = stage.then(Project(names=project.names, expressions=project.expressions), schema=project.schema)
        return stage

    def _repartition(self, node: RepartitionNode) -> _OpenStage:
        count = node.num_partitions
        output: HashShuffle | RoundRobinShuffle
        if node.keys:
            output = HashShuffle(keys=node.keys, num_partitions=count)
        else:
            output = RoundRobinShuffle(num_partitions=count)
        return self._shuffled(self.stage_of(node.child), output, "repartition")


def _schema_after(step: Aggregate, schema: pa.Schema) -> pa.Schema:
    return plain_schema(apply_table_step(step, [schema.empty_table()]).schema)
