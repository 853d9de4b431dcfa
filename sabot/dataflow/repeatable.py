"""Which stages put every row into the same partition whenever they run: only those may be replayed in part.

In doubt a stage is not repeatable, which costs a comparison or a restart and never a wrong answer. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from sabot.dataflow.function_steps import MapBatches, MapPartitions
from sabot.dataflow.join_types import joined_columns
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle
from sabot.dataflow.stage import (
    Aggregate,
    BroadcastJoin,
    BroadcastShuffle,
    Draw,
    HashShuffle,
    Head,
    JobPlan,
    Join,
    Project,
    ShuffleInput,
    Stage,
    Step,
)

_ORDERED_AGGREGATES = {"first", "last", "first_last", "list", "one", "distinct"}


def repeatable_stages(plan: JobPlan) -> frozenset[int]:
    """The ids of the stages whose replays need no proof.

    A stage is repeatable where it calls no Python function, takes no head and no aggregate that depends on the
    order of rows, and partitions by task, or by the hash or fixed ranges of keys that no float aggregate had a part in.
    Files are pinned anyway.
    """
    return frozenset(stage.stage_id for stage in plan.stages if _is_repeatable(stage, plan))


def _is_repeatable(stage: Stage, plan: JobPlan) -> bool:
    if not isinstance(stage.output, HashShuffle | BroadcastShuffle | HomeShuffle | RangeShuffle) or not _has_fixed_rows(
        stage, plan
    ):
        return False
    if isinstance(stage.output, HomeShuffle):  # placed by task, whatever is in the rows
        return True
    return all(_key_is_exact(key, stage, plan) for key in stage.output.keys)


def _has_fixed_rows(stage: Stage, plan: JobPlan) -> bool:
    for position, step in enumerate(stage.steps):
        match step:
            case (
                MapBatches() | MapPartitions() | Draw() | Head()
            ):  # a head after a sort, too: which of equal rows it takes goes by their order
                return False
            case Aggregate() if any(_function(item[1]) in _ORDERED_AGGREGATES for item in step.aggregations):
                return False
            # By a float aggregate a row may match once and not the next time, and then have other keys.
            case Join(filter_expression=expression) if expression is not None and _aggregates(stage, plan):
                return False
            case BroadcastJoin(join=join, side=side):
                if join.filter_expression is not None and _aggregates(stage, plan):
                    return False
                # The keys of the copy are looked at where it is sent.
                kept = (join.right_keys, join.keys)[side]
                if not all(_is_exact_before(position, key, stage, plan) for key in kept):
                    return False
    return True


def _function(name: str) -> str:
    return name.removeprefix("hash_")


def _key_is_exact(key: str, stage: Stage, plan: JobPlan) -> bool:
    """Whether no float aggregate had a part in the key's values: followed back to where the column was read."""
    if not _aggregates(stage, plan):
        return True
    if pa.types.is_floating(stage.schema.field(key).type):
        return False
    return _is_exact_before(len(stage.steps), key, stage, plan)


def _is_exact_before(position: int, key: str, stage: Stage, plan: JobPlan) -> bool:
    """Whether column `key` of the rows that the stage's step at `position` is given is exact."""
    source: str | None = key
    senders = _inputs(stage, plan)
    for place in reversed(range(position)):
        step = stage.steps[place]
        if source is None:
            return False
        if isinstance(step, BroadcastJoin):  # of which side the column is would have to be found out
            before = replace(stage, steps=stage.steps[:place])
            return not _aggregates(before, plan) and not _aggregates(plan.stages[step.stage_id], plan)
        if isinstance(step, Join):  # the first step
            return _joined_key_is_exact(source, step, senders, plan)
        source = _before(step, source)
    return source is not None and all(_key_is_exact(source, sender, plan) for sender in senders)


def _joined_key_is_exact(key: str, step: Join, senders: Sequence[Stage], plan: JobPlan) -> bool:
    """Whether the key's values are exact in each side that the join takes them from."""
    left, right = senders
    columns = joined_columns(step, left.schema.names, right.schema.names)
    sources = [
        (side, place)
        for column in columns
        if column.name == key
        for side, place in ((left, column.left), (right, column.right))
    ]
    return all(_key_is_exact(side.schema.names[place], side, plan) for side, place in sources if place is not None)


def _before(step: Step, key: str) -> str | None:
    """The column before `step` that `key` is after it, unchanged; None where it is not known to be one."""
    match step:
        case Project():
            return _plain_field(step, key)
        case Aggregate():
            source = key if step.finish is None else _plain_field(step.finish, key)
            return source if source in step.keys else None
    return key


def _plain_field(project: Project, key: str) -> str | None:
    """The input column that `key` is, where it is one unchanged."""
    if key not in project.names:
        return None
    text = str(project.expressions[project.names.index(key)])
    return None if "(" in text else text


def _aggregates(stage: Stage, plan: JobPlan) -> bool:
    """Whether rows of the stage, or those that it reads, have been aggregated."""
    if any(isinstance(step, Aggregate) for step in stage.steps):
        return True
    return any(_aggregates(sender, plan) for sender in _senders(stage, plan))


def _senders(stage: Stage, plan: JobPlan) -> list[Stage]:
    """The stages whose shuffles the stage reads, copies included."""
    return [plan.stages[stage_id] for stage_id in stage.reads]


def _inputs(stage: Stage, plan: JobPlan) -> list[Stage]:
    """The stages whose shuffles are the stage's input."""
    sources = stage.input.stage_ids if isinstance(stage.input, ShuffleInput) else ()
    return [plan.stages[stage_id] for stage_id in sources]
