"""Which stages put every row into the same partition whenever they run: only those may be replayed in part.

In doubt a stage is not repeatable, which costs a comparison or a restart and never a wrong answer. Pure.
"""

from __future__ import annotations

import pyarrow as pa

from sabot.dataflow.stage import (
    Aggregate,
    HashShuffle,
    Head,
    JobPlan,
    Join,
    MapBatches,
    Project,
    ShuffleInput,
    Stage,
    Step,
)

_ORDERED_AGGREGATES = {"first", "last", "first_last", "list", "one", "distinct"}


def repeatable_stages(plan: JobPlan) -> frozenset[int]:
    """The ids of the stages whose replays need no proof.

    A stage is repeatable where it calls no Python function, takes no head and no aggregate that depends on the
    order of rows, and partitions by the hash of keys that no float aggregate had a part in. Files are pinned anyway.
    """
    return frozenset(stage.stage_id for stage in plan.stages if _is_repeatable(stage, plan))


def _is_repeatable(stage: Stage, plan: JobPlan) -> bool:
    if not isinstance(stage.output, HashShuffle) or not _has_fixed_rows(stage):
        return False
    return all(_key_is_exact(key, stage, plan) for key in stage.output.keys)


def _has_fixed_rows(stage: Stage) -> bool:
    for step in stage.steps:
        match step:
            case MapBatches() | Head():  # a head after a sort, too: which of equal rows it takes goes by their order
                return False
            case Aggregate() if any(_function(item[1]) in _ORDERED_AGGREGATES for item in step.aggregations):
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
    source: str | None = key
    for step in reversed(stage.steps):
        if source is not None:
            source = _before(step, source)
    if source is None or not isinstance(stage.input, ShuffleInput):
        return source is not None
    inputs = [plan.stages[stage_id] for stage_id in stage.input.stage_ids]
    return all(_key_is_exact(source, sender, plan) for sender in inputs if source in sender.schema.names)


def _before(step: Step, key: str) -> str | None:
    """The column before `step` that `key` is after it, unchanged; None where it is not known to be one."""
    match step:
        case Project():
            return _plain_field(step, key)
        case Aggregate():
            source = key if step.finish is None else _plain_field(step.finish, key)
            return source if source in step.keys else None
        case Join() if step.left_suffix or step.right_suffix:
            return None
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
    sources = stage.input.stage_ids if isinstance(stage.input, ShuffleInput) else ()
    return any(_aggregates(plan.stages[stage_id], plan) for stage_id in sources)
