"""Which partitions of a join have too many rows for one task, and into how many shares each is cut. Pure.

A share has a part of the larger input and a copy of the other one. That gives the same rows where each row of the
part meets all rows that it may match, and no row of the copy is given for itself: see SIDES_TO_CUT.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sabot.dataflow.function_steps import MapBatches
from sabot.dataflow.join_types import LEFT, RIGHT, SIDES_TO_CUT
from sabot.dataflow.stage import (
    Aggregate,
    BroadcastJoin,
    Filter,
    HashShuffle,
    Join,
    PartitionSplit,
    Project,
    Share,
    Split,
    Stage,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HotRule:
    """A partition is hot with more than `factor` times the mean of rows, and `rows_min` at least: fewer are done before
    another agent has been asked. See configs/agent.yaml for shuffle.hot_partition_factor.
    """

    factor: float = math.inf
    rows_min: int = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRows:
    """What one input of a stage sent: rows by partition, by that many tasks."""

    rows: Sequence[int]
    tasks: int


def may_share(stage: Stage) -> bool:
    """Whether the stage joins, and then does nothing for which it needs all rows of a partition."""
    if not stage.steps or not isinstance(stage.steps[0], Join) or not SIDES_TO_CUT[stage.steps[0].join_type]:
        return False
    steps = stage.steps[1:]
    if steps and _is_partial(steps[-1], stage):
        steps = steps[:-1]
    return all(isinstance(step, Filter | Project | MapBatches | BroadcastJoin) for step in steps)


def share_hot(
    stage: Stage, splits: Sequence[Split], inputs: Sequence[SentRows], *, slots: int, rule: HotRule
) -> list[Split]:
    """The splits, with shares in the place of each hot partition: at most `slots`, and about the mean of rows each."""
    if not may_share(stage) or len(inputs) != len((LEFT, RIGHT)):
        return list(splits)
    totals = [left + right for left, right in zip(inputs[LEFT].rows, inputs[RIGHT].rows, strict=True)]
    mean = sum(totals) / max(1, len(totals))
    shared: list[Split] = []
    for split in splits:
        assert isinstance(split, PartitionSplit)
        total = totals[split.partition]
        shares: list[Share] = []
        if total >= rule.rows_min and total > rule.factor * mean:
            shares = _shares(stage, split.partition, inputs, wanted=min(slots, round(total / mean)))
        shared += [PartitionSplit(partition=split.partition, share=share) for share in shares] or [split]
    return shared


def _shares(stage: Stage, partition: int, inputs: Sequence[SentRows], *, wanted: int) -> list[Share]:
    """None where cutting does not help: each share would have the larger part again."""
    join = stage.steps[0]
    assert isinstance(join, Join)
    rows = [source.rows[partition] for source in inputs]
    side = max(SIDES_TO_CUT[join.join_type], key=lambda candidate: rows[candidate])
    count = min(wanted, inputs[side].tasks)
    if count < 2 or rows[side] <= rows[1 - side]:
        return []
    rows[side] = -(-rows[side] // count)
    return [Share(index=index, count=count, side=side, rows=(rows[LEFT], rows[RIGHT])) for index in range(count)]


def _is_partial(step: object, stage: Stage) -> bool:
    """Whether an aggregation is put together after the stage's shuffle, which is by its keys."""
    return (
        isinstance(step, Aggregate)
        and step.finish is None
        and isinstance(stage.output, HashShuffle)
        and stage.output.keys == step.keys
    )
