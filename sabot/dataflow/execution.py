"""What the task runner does with a stage's steps: pure functions over tables and batches, in the calling thread.

Planning learns its schemas by the same functions over tables without rows, so that what a task gives has the planned
schema.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.checked_function import CheckedFunction
from sabot.dataflow.columns import plain_schema
from sabot.dataflow.expressions import project_schema, project_table
from sabot.dataflow.function_steps import MapBatches, MapPartitions
from sabot.dataflow.grouping import group_by_one_key, group_declaration
from sabot.dataflow.joining import join_plan
from sabot.dataflow.key_join import key_join
from sabot.dataflow.partition_function import PartitionFunction
from sabot.dataflow.quarantine import QuarantiningFunction
from sabot.dataflow.run_grouping import group_runs
from sabot.dataflow.stage import (
    Aggregate,
    BroadcastJoin,
    Draw,
    Filter,
    Head,
    Join,
    MorselStep,
    Project,
    Sort,
    Step,
    TableStep,
)
from sabot.dataflow.wire_form import from_wire, to_wire, wire_schema
from sabot.errors import InternalError
from sabot.wire.packed_function import pack_function

if TYPE_CHECKING:
    from pyarrow import acero

__all__ = [
    "CheckedFunction",
    "MorselSegment",
    "apply_table_step",
    "from_wire",
    "partition_step",
    "pipeline_steps",
    "schema_after",
    "segments",
    "to_wire",
    "wire_schema",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MorselSegment:
    """Consecutive morsel steps of a stage: a morsel runs through all of them in one go."""

    steps: tuple[MorselStep, ...]

    @property
    def batch_rows(self) -> int | None:
        """Of how many rows its morsels are, where that matters."""
        first = self.steps[0]
        return first.batch_rows if isinstance(first, MapBatches) else None

    @property
    def quarantining(self) -> MapBatches | None:
        """Its last step, where batches that the function fails on come out of it, too."""
        last = self.steps[-1]
        return last if isinstance(last, MapBatches) and last.on_error == "quarantine" else None


def segments(steps: Sequence[Step]) -> list[MorselSegment | MapPartitions | TableStep | BroadcastJoin | Draw]:
    """The steps in order, those that run per morsel gathered into segments. A function that is given batches of its own
    size begins one, and one whose failures are kept ends it.
    """
    found: list[MorselSegment | MapPartitions | TableStep | BroadcastJoin | Draw] = []
    morsel_steps: list[MorselStep] = []

    def end_segment() -> None:
        if morsel_steps:
            found.append(MorselSegment(steps=tuple(morsel_steps)))
            morsel_steps.clear()

    for step in steps:
        if isinstance(step, MorselStep):
            if isinstance(step, MapBatches) and step.batch_rows is not None:
                end_segment()
            morsel_steps.append(step)
            if isinstance(step, MapBatches) and step.on_error == "quarantine":
                end_segment()
        else:
            end_segment()
            found.append(step)
    end_segment()
    return found


def schema_after(segment: MorselSegment, schema: pa.Schema) -> pa.Schema:
    """The columns that the segment makes of batches of `schema`: for a task that has no batch to see them from."""
    schema = plain_schema(schema)
    for step in segment.steps:
        match step:
            case Project():
                schema = project_schema(schema, step.names, step.expressions, "project")
            case MapBatches():
                schema = plain_schema(step.schema)
    return schema


def pipeline_steps(steps: Sequence[MorselStep]) -> list[tuple[Any, ...]]:
    """The steps as `sabot.slots.operators.Pipeline` takes them; user functions are wrapped in their check."""
    pipeline: list[tuple[Any, ...]] = []
    for step in steps:
        match step:
            case Filter():
                pipeline.append(("filter", step.expression))
            case Project():
                pipeline.append(("project", list(step.names), list(step.expressions)))
            case MapBatches():
                checked: Callable[[pa.RecordBatch], pa.RecordBatch | None]
                checked = CheckedFunction(step.function, step.schema, step.name)
                if step.on_error == "quarantine":
                    checked = QuarantiningFunction(checked)
                if step.processes:
                    keeps = step.on_error == "quarantine"
                    pipeline.append(("worker", pack_function(checked, step.name), step.timeout_s, keeps))
                else:
                    pipeline.append(("call", checked))
    return pipeline


def partition_step(step: MapPartitions) -> tuple[Any, ...]:
    """The step as a Pipeline takes it, whose one batch is the partition."""
    function = PartitionFunction(step.function, step.schema, step.name)
    if step.processes:
        return ("worker", pack_function(function, step.name), step.timeout_s)
    return ("call", function)


def run_here(declaration: acero.Declaration) -> pa.Table:
    """The plan's table, computed in the calling thread."""
    return declaration.to_table(use_threads=False)


def apply_table_step(
    step: TableStep, tables: Sequence[pa.Table], run_plan: Callable[[acero.Declaration], pa.Table] = run_here
) -> pa.Table:
    """The step over whole tables: two for a Join (left, right), else one. `run_plan` runs an aggregation's plan in one
    thread, and a join's in any number; all else is computed in the calling thread.
    """
    expected = 2 if isinstance(step, Join) else 1
    if len(tables) != expected:
        raise InternalError(f"{type(step).__name__} takes {expected} tables, not {len(tables)}; please report this")
    match step:
        case Join():
            by_key = key_join(step, tables)
            if by_key is not None:
                return by_key.join(tables[1 - by_key.side])
            plan = join_plan(tables[0], tables[1], step)
            return plan.finish(run_plan(plan.declaration))
        case Aggregate():
            answer = group_runs(step, tables[0], ascending=True)
            if answer is None:
                answer = group_by_one_key(tables[0], step)
            if answer is None:
                answer = run_plan(group_declaration(tables[0], step))
            if step.finish is not None:
                answer = project_table(answer, step.finish.names, step.finish.expressions)
        case Sort():
            answer = _sorted(tables[0], step)
        case Head():
            answer = tables[0].slice(0, step.rows)
    return pa.Table.from_arrays(answer.columns, schema=plain_schema(answer.schema))


def _sorted(table: pa.Table, step: Sort) -> pa.Table:
    # pyarrow cannot sort dictionaries in tables: their values are sorted instead.
    names = list(dict.fromkeys(key[0] for key in step.sorting))
    keys = pa.table({name: _sortable(table[name]) for name in names})
    return table.take(pc.sort_indices(keys, options=pc.SortOptions(sort_keys=list(step.sorting))))


def _sortable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
