"""A planned job in words: its stages, their steps, where rows are shuffled, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sabot.dataflow.function_steps import MapBatches, MapPartitions
from sabot.dataflow.grouping import aggregate_name
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle
from sabot.dataflow.stage import (
    Aggregate,
    BroadcastJoin,
    BroadcastShuffle,
    Draw,
    Filter,
    HashShuffle,
    Head,
    JobPlan,
    Join,
    Output,
    Project,
    ResultOutput,
    RoundRobinShuffle,
    ScanInput,
    ShuffleInput,
    Sort,
    Stage,
    Step,
    TableInput,
    WriteOutput,
)

# How pyarrow prints the options of a cast, of which only the type is worth reading.
_CAST_OPTIONS = re.compile(r"\{to_type=([^,}]+)[^}]*\}")


def explain_job(plan: JobPlan, measured: Mapping[int, str] | None = None) -> str:
    """The stages of the plan, one paragraph each, in the order in which they may start; `measured` is what to say of
    each stage's run.
    """
    measured = measured or {}
    readers = {stage_id: stage for stage in plan.stages for stage_id in stage.reads}
    return "\n".join(
        _stage_text(stage, readers.get(stage.stage_id), measured.get(stage.stage_id)) for stage in plan.stages
    )


def _stage_text(stage: Stage, reader: Stage | None, measured: str | None) -> str:
    lines = [
        f"stage {stage.stage_id}: {stage.label}",
        f"  from  {_input_text(stage.input, joined=isinstance(next(iter(stage.steps), None), Join))}",
    ]
    lines += [f"  then  {_step_text(step, partial=_is_partial(step, stage, reader))}" for step in stage.steps]
    lines.append(f"  to    {_output_text(stage.output, reader)}")
    if measured is not None:
        lines.append(f"  took  {measured}")
    return "\n".join(lines) + "\n"


def _input_text(source: ScanInput | TableInput | ShuffleInput, *, joined: bool) -> str:
    match source:
        case ScanInput():
            columns = "all columns" if source.columns is None else f"columns {', '.join(source.columns)}"
            return f"{_files_text(source)}, {columns}"
        case TableInput():
            return f"the client's table with columns {', '.join(source.schema.names)}"
        case ShuffleInput():
            shuffles = [f"the shuffle of stage {stage_id}" for stage_id in source.stage_ids]
            return f"the left side {', the right side '.join(shuffles)}" if joined else ", then ".join(shuffles)


def _files_text(source: ScanInput) -> str:
    size_bytes = sum(file.size_bytes for file in source.files)
    if source.totals is None or source.row_groups is None:
        return f"{len(source.files)} {source.format} file(s), {size_bytes:,} bytes"
    files = f"{len(source.files)} of {source.totals.files} {source.format} file(s)"
    groups = sum(len(groups) for groups in source.row_groups)
    of_groups = f"{groups} of {source.totals.row_groups} row groups, " if source.format == "parquet" else ""
    return f"{files}, {of_groups}{size_bytes:,} bytes"


def _is_partial(step: Step, stage: Stage, reader: Stage | None) -> bool:
    """Whether the step is the first half of an aggregation that the reader of the stage's shuffle finishes."""
    if not isinstance(step, Aggregate) or step is not stage.steps[-1] or reader is None:
        return False
    match reader.steps[:1]:
        case (Aggregate() as final,):
            return final.finish is not None
    return False


def _step_text(step: Step, *, partial: bool) -> str:  # noqa: PLR0911 - one per kind of step
    match step:
        case Draw():
            return f"draw a number for each row, seed {step.seed}"
        case Filter():
            moved = f", moved down through {' and '.join(dict.fromkeys(step.passed))}" if step.passed else ""
            return f"filter {step.expression}{moved}"
        case Project():
            pairs = zip(step.names, step.expressions, strict=True)
            return "columns " + ", ".join(_column_text(name, str(expression)) for name, expression in pairs)
        case MapBatches():
            kept = ", keeping those that it fails on" if step.on_error == "quarantine" else ""
            batches = "each batch" if step.batch_rows is None else f"{step.batch_rows:,} rows each"
            return f"call {step.name} with {batches}{kept}"
        case MapPartitions():
            return f"call {step.name} with each partition"
        case Aggregate():
            return _aggregate_text(step, partial=partial)
        case Join():
            return _join_text(step)
        case BroadcastJoin():
            side = ("left", "right")[step.side]
            return f"{_join_text(step.join)}, the {side} side this agent's copy of stage {step.stage_id}"
        case Sort():
            return "sort by " + ", ".join(" ".join(key) for key in step.sorting)
        case Head():
            return f"take the first {step.rows} rows"


def _join_text(step: Join) -> str:
    pairs_text = ", ".join(
        left if left == right else f"{left} = {right}" for left, right in zip(step.keys, step.right_keys, strict=True)
    )
    filtered = "" if step.filter_expression is None else f" where {step.filter_expression}"
    return f"{step.join_type} join on {pairs_text}{filtered}"


def _aggregate_text(step: Aggregate, *, partial: bool) -> str:
    how = "aggregate this task's rows" if partial else "aggregate" if step.finish is None else "put aggregates together"
    by = f" by {', '.join(step.keys)}" if step.keys else ""
    if step.finish is None:
        names = [aggregate_name(aggregation) for aggregation in step.aggregations]
    else:
        names = list(step.finish.names[len(step.keys) :])
    return f"{how}{by}" + (f": {', '.join(names)}" if names else "")


def _column_text(name: str, expression: str) -> str:
    expression = _CAST_OPTIONS.sub(r"\1", expression)
    return name if name == expression else f"{name} = {expression}"


def _output_text(output: Output, reader: Stage | None) -> str:  # noqa: PLR0911 - one per kind of output
    match output:
        case ResultOutput():
            return "the result, fetched by the client"
        case WriteOutput():
            return f"{output.format} files in {output.folder}"
        case HomeShuffle(sample_keys=keys):
            return (
                f"shuffle into a partition for each task, which stays where it is: {', '.join(keys)} is sampled first"
            )
        case RangeShuffle(sorting=sorting, sampled_by=sampled_by):
            by = ", ".join(" ".join(key) for key in sorting)
            stages = ", ".join(map(str, sampled_by))
            return f"shuffle by ranges of {by}, cut by the sample of stage {stages}: each is put in order by a task"
        case RoundRobinShuffle():
            united = reader is not None and isinstance(reader.input, ShuffleInput) and len(reader.input.stage_ids) > 1
            why = "rows of a union are brought together" if united else "rows are to be spread evenly"
            return f"shuffle in turn into {_count_text(output.num_partitions)}: {why}"
        case BroadcastShuffle():
            return (
                f"broadcast, a copy for every agent: {output.bytes_estimated:,} bytes at most are expected, and up to "
                f"{output.bytes_max:,} (jobs.broadcast_bytes_max) the other side of the join need not be shuffled"
            )
        case HashShuffle():
            why = _why_text(reader.steps if reader is not None else ())
            if not output.keys:
                return f"shuffle into one partition: {why}"
            return f"shuffle by hash of {', '.join(output.keys)} into {_count_text(output.num_partitions)}: {why}"


def _count_text(num_partitions: int | None) -> str:
    if num_partitions is None:
        return "partitions"
    return f"{num_partitions} partition" + ("" if num_partitions == 1 else "s")


def _why_text(reader_steps: Sequence[Step]) -> str:
    match reader_steps[:1]:
        case (Join(),):
            return "rows with equal keys of both sides must meet"
        case (Aggregate(keys=()),):
            return "one task must see all"
        case (Aggregate(),):
            return "rows of a group must meet"
        case (Sort(),):
            return "one task puts all in order"
        case (Head(),):
            return "one task takes the first of all"
        case _:
            return "repartition asked for it"
