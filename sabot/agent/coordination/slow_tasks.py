"""When an attempt is slow: its task gets a second one on an agent that has nothing else to do. Pure.

A task is slow beside the others of its stage. One whose stage has no others has nothing to be held against.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass

from sabot.dataflow.join_types import LEFT
from sabot.dataflow.stage import PartitionSplit, Share, Split, StoredSplit, TableSplit

Elsewhere = Callable[[Split], Split | None]
"""What another agent reads in the place of a split; None where only the one that it was cut for can."""


class Durations:
    """How long the committed tasks of a stage have taken."""

    def __init__(self) -> None:
        self._sorted_s: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted_s)

    def add(self, seconds: float) -> None:
        insort(self._sorted_s, seconds)

    @property
    def median_s(self) -> float:
        """Of the two in the middle the shorter one; there is one at least."""
        return self._sorted_s[(len(self._sorted_s) - 1) // 2]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowRule:
    """An attempt is slow after `factor` times the median of its stage, or `median_s_min` where that is shorter, once
    half of the stage's tasks are done. See configs/agent.yaml for jobs.slow_task_factor.
    """

    factor: float = math.inf
    median_s_min: float = 0.5

    def limit_s(self, durations: Durations, *, tasks: int) -> float | None:
        """From when on an attempt of a stage of `tasks` is slow, None where that cannot be said yet."""
        if not math.isfinite(self.factor) or not durations or 2 * len(durations) < tasks:
            return None
        return self.factor * max(self.median_s_min, durations.median_s)


def read_elsewhere(split: Split, rows: tuple[int, ...]) -> Split | None:
    """What an agent reads in the place of a split that was another one's; None where only that one has the rows.

    A whole partition, of `rows` by input, is pulled from its owner as a share of one is.
    """
    match split:
        case TableSplit() | StoredSplit():
            return None
        case PartitionSplit(partition=partition, share=None):
            return PartitionSplit(partition=partition, share=Share(index=0, count=1, side=LEFT, rows=rows))
        case _:
            return split
