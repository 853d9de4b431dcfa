"""How rows come into order over several tasks: sort keys, and the outputs of stages that sample them and cut ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Order = Literal["ascending", "descending"]
SortKey = tuple[str, Order] | tuple[str, Order, Literal["at_start", "at_end"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeShuffle:
    """A task's rows go to a partition of its own, where the task runs if that may be: they are to be read again when
    ranges have been cut by a sample of `sample_keys` that each task gives.
    """

    sample_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeShuffle:
    """Rows go to the partition of their range by `sorting`; ranges are cut once the stages `sampled_by` are done.

    A key that has many rows may have several ranges, which the tasks fill in turn, so that rows keep their order.
    """

    sorting: tuple[SortKey, ...]
    sampled_by: tuple[int, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The sort columns."""
        return tuple(key[0] for key in self.sorting)
