"""A planned job in words: its stages, their steps, where rows are shuffled, and why."""

from __future__ import annotations

from collections.abc import Sequence

from sabot.dataflow.aggregation import aggregate_name
from sabot.dataflow.stage import (
    Aggregate,
    Filter,
    HashShuffle,
    Head,
    JobPlan,
    Join,
    MapBatches,
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


def explain_job(plan: JobPlan) -> str:
    """The stages of the plan, one paragraph each, in the order in which they may start."""
    readers = {
        stage_id: stage
        for stage in plan.stages
        if isinstance(stage.input, ShuffleInput)
        for stage_id in stage.input.stage_ids
    }
    return "\n".join(_stage_text(stage, readers.get(stage.stage_id)) for stage in plan.stages)


def _stage_text(stage: Stage, reader: Stage | None) -> str:
    lines = [f"stage {stage.stage_id}: {stage.label}", f"  from  {_input_text(stage.input)}"]
    lines += [f"  then  {_step_text(step, partial=_is_partial(stage, step))}" for step in stage.steps]
    lines.append(f"  to    {_output_text(stage.output, reader)}")
    return "\n".join(lines) + "\n"


def _input_text(source: ScanInput | TableInput | ShuffleInput) -> str:
    match source:
        case ScanInput():
            columns = "all columns" if source.columns is None else f"columns {', '.join(source.columns)}"
            size_bytes = sum(file.size_bytes for file in source.files)
            return f"{len(source.files)} {source.format} file(s), {size_bytes:,} bytes, {columns}"
        case TableInput():
            return f"the client's table with columns {', '.join(source.schema.names)}"
        case ShuffleInput():
            sides = ", the right side ".join(f"the shuffle of stage {stage_id}" for stage_id in source.stage_ids)
            return f"the left side {sides}" if len(source.stage_ids) > 1 else sides


def _is_partial(stage: Stage, step: Step) -> bool:
    return isinstance(step, Aggregate) and step is stage.steps[-1] and isinstance(stage.output, HashShuffle)


def _step_text(step: Step, *, partial: bool) -> str:
    match step:
        case Filter():
            return f"filter {step.expression}"
        case Project():
            pairs = zip(step.names, step.expressions, strict=True)
            return "columns " + ", ".join(_column_text(name, str(expression)) for name, expression in pairs)
        case MapBatches():
            return f"call {step.name} with each batch"
        case Aggregate():
            names = ", ".join(aggregate_name(aggregation) for aggregation in step.aggregations) or "nothing else"
            how = "aggregate this task's rows" if partial else "aggregate"
            return f"{how} by {', '.join(step.keys)}: {names}" if step.keys else f"{how}: {names}"
        case Join():
            pairs_text = ", ".join(
                left if left == right else f"{left} = {right}"
                for left, right in zip(step.keys, step.right_keys, strict=True)
            )
            return f"{step.join_type} join on {pairs_text}"
        case Sort():
            return "sort by " + ", ".join(" ".join(key) for key in step.sorting)
        case Head():
            return f"take the first {step.rows} rows"


def _column_text(name: str, expression: str) -> str:
    return name if name == expression else f"{name} = {expression}"


def _output_text(output: Output, reader: Stage | None) -> str:
    match output:
        case ResultOutput():
            return "the result, fetched by the client"
        case WriteOutput():
            return f"{output.format} files in {output.folder}"
        case RoundRobinShuffle():
            return f"shuffle in turn into {_count_text(output.num_partitions)}: rows are to be spread evenly"
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
