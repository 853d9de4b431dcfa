"""How large the morsels of one operator should be, learnt from what its morsels took. No clock, no threads, no I/O."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

KiB = 1024
MORSEL_BYTES_MIN = 16 * KiB
MORSEL_BYTES_MAX = 16 * 1024 * KiB

# Where nothing is known yet: small enough that a slow operator is found out soon.
FIRST_MORSEL_BYTES = 256 * KiB

# What a morsel should take. Handing one out costs a slot about a microsecond; one that takes a millisecond hides that,
# and is over soon enough for a fair share and a cancel. A call into Python also waits its turn for the GIL, which a
# slot that computes in Python gives up every 5 ms only (sys.getswitchinterval).
NATIVE_TARGET_US = 1_000.0
PYTHON_TARGET_US = 4_000.0

# The size changes at most so many times over by what one run has shown, since its first morsels pay for more than rows.
STEP_MAX = 16.0
# A size that would change by less than this is left to the rest of the rows.
SETTLED_WITHIN = 2.0


class MorselCost(NamedTuple):
    """What one morsel took; the wait for the GIL is part of the run."""

    num_bytes: int
    run_us: int
    gil_wait_us: int


class MorselSizer:
    """Proposes `morsel_bytes`; `observe` tells it what morsels of that operator took.

    Used from several threads without a lock: of two observations at once one may be lost, which costs nothing.
    """

    def __init__(self, *, calls_python: bool) -> None:
        self._target_us = PYTHON_TARGET_US if calls_python else NATIVE_TARGET_US
        self._morsel_bytes = float(FIRST_MORSEL_BYTES)
        self._settled = False

    @property
    def morsel_bytes(self) -> int:
        """The size to use next."""
        return int(self._morsel_bytes)

    @property
    def settled(self) -> bool:
        """Whether the last run's morsels took about what they should, or could get no nearer to it."""
        return self._settled

    def observe(self, costs: Sequence[MorselCost | tuple[int, int, int]]) -> None:
        """Learns from the morsels of one run, all of about one size. The median of them counts: a slot that was put
        aside by the system, or a first morsel that bound an expression, is no fault of the size.
        """
        seen = [(size, run_us - gil_wait_us) for size, run_us, gil_wait_us in costs if size > 0]
        if not seen:
            return
        size = statistics.median(one[0] for one in seen)
        took_us = max(1.0, statistics.median(one[1] for one in seen))
        change = self._target_us / took_us
        wanted = size * min(max(change, 1 / STEP_MAX), STEP_MAX)
        bounded = min(max(wanted, MORSEL_BYTES_MIN), MORSEL_BYTES_MAX)
        if size < self._morsel_bytes and wanted < self._morsel_bytes and change > 1:
            return  # the rows were too few for the size, and nothing says that it is too large
        ratio = bounded / self._morsel_bytes
        self._settled = 1 / SETTLED_WITHIN <= ratio <= SETTLED_WITHIN
        # Half way, on a logarithmic scale, once it is about right: single runs are noisy.
        self._morsel_bytes *= ratio**0.5 if self._settled else ratio


def share_of_slot(total_bytes: int, morsel_bytes: int, num_slots: int) -> int:
    """`morsel_bytes`, or less where the rows would then not do for every slot."""
    return max(1, min(morsel_bytes, -(-total_bytes // max(1, num_slots))))
