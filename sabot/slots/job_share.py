"""On whose account work in the slots goes: a job and its weight."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from sabot.errors import UsageError

WEIGHT_MIN = 1e-3
WEIGHT_MAX = 1e6


@dataclass(frozen=True, slots=True)
class JobShare:
    """Jobs that have work share the slots' time by weight; the empty id is the one job of all who name none."""

    job: str = ""
    weight: float = 1.0


def check_weight(weight: float) -> float:
    """The weight itself; UsageError where it is none."""
    if not (isinstance(weight, (int, float)) and math.isfinite(weight) and WEIGHT_MIN <= weight <= WEIGHT_MAX):
        raise UsageError(f"weight is {weight!r}; give a number from {WEIGHT_MIN} to {WEIGHT_MAX:,.0f}")
    return float(weight)


class JobShares:
    """Makes the shares of one manager's callers. A weight without a job makes a job of its own."""

    def __init__(self) -> None:
        self._unnamed = itertools.count(1)

    def share(self, job: str | None, weight: float | None) -> JobShare:
        """UsageError where the job is no name or the weight is out of range."""
        if weight is not None:
            check_weight(weight)
        if job is not None:
            if not isinstance(job, str) or not job:
                raise UsageError(f"job is {job!r}; give its id, or leave it out")
            return JobShare(job, 1.0 if weight is None else float(weight))
        if weight is None:
            return JobShare()
        return JobShare(f"~{next(self._unnamed)}", float(weight))
