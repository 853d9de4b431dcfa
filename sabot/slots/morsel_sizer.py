"""How large the morsels of one operator should be, learnt from what its morsels took. No clock, no threads, no I/O."""

from __future__ import annotations

from bisect import bisect_left
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

# What a morsel takes whatever its size may be this part of its time; where it would be more, morsels take longer.
FIXED_PART_MAX = 0.05
# What is fixed is told from what goes with the rows by two sizes at least so many times apart.
SIZES_APART = 1.5
# An estimate of it that is not confirmed fades.
FIXED_FADES = 0.9

# The size changes at most so many times over by what one run has shown, since its first morsels pay for more than rows.
STEP_MAX = 16.0
# A size that would change by less than this is left to the rest of the rows.
SETTLED_WITHIN = 2.0

# The last rows of a call, one morsel for each slot, are cut so many times smaller, so that the slots end together.
TAIL_PARTS = 4


class MorselCost(NamedTuple):
    """What one morsel took; the wait for the GIL is part of the run."""

    num_bytes: int
    run_us: int
    gil_wait_us: int


class Observation(NamedTuple):
    """What the median morsel of about one size took, without the wait for the GIL."""

    num_bytes: int
    took_us: int


class MorselSizer:
    """Proposes `morsel_bytes`; `observe` tells it what morsels of that operator took.

    Used from several threads without a lock: of two observations at once one may be lost, which costs nothing.
    """

    def __init__(self, *, calls_python: bool) -> None:
        self._target_us = PYTHON_TARGET_US if calls_python else NATIVE_TARGET_US
        self._morsel_bytes = float(FIRST_MORSEL_BYTES)
        self._fixed_us = 0.0
        self._other: Observation | None = None  # of another size, perhaps
        self._splits_tail = True  # two sizes tell more than one
        self._settled = False

    @property
    def morsel_bytes(self) -> int:
        """The size to use next."""
        return int(self._morsel_bytes)

    @property
    def tail_bytes(self) -> int:
        """The size for the last rows of a call: smaller, unless more morsels would cost more than slots that end at
        different times.
        """
        return int(self._morsel_bytes) // (TAIL_PARTS if self._splits_tail else 1)

    @property
    def settled(self) -> bool:
        """Whether the last run's morsels took about what they should, or could get no nearer to it."""
        return self._settled

    def observe(self, costs: Sequence[MorselCost | tuple[int, int, int]]) -> None:
        """Learns from the morsels of one run. The median of those of about the largest size counts: a slot that was put
        aside by the system, or a first morsel that bound an expression, is no fault of the size.
        """
        ordered = sorted((size, run_us - gil_wait_us) for size, run_us, gil_wait_us in costs if size > 0)
        if not ordered:
            return
        small = bisect_left(ordered, (ordered[-1][0] / SIZES_APART, 0))
        seen = _median(ordered[small:])
        self._learn_fixed(seen, ordered[:small])
        # So much of the time goes with the rows, and so much of it should.
        rows_us = max(seen.took_us - self._fixed_us, seen.took_us / 1_000)
        rows_wanted_us = max(self._target_us - self._fixed_us, self._fixed_us * (1 / FIXED_PART_MAX - 1))
        change = rows_wanted_us / rows_us
        wanted = seen.num_bytes * min(max(change, 1 / STEP_MAX), STEP_MAX)
        if seen.num_bytes * SIZES_APART < self._morsel_bytes and wanted < self._morsel_bytes and change > 1:
            return  # the rows were too few for the size, and nothing says that it is too large
        ratio = min(max(wanted, MORSEL_BYTES_MIN), MORSEL_BYTES_MAX) / self._morsel_bytes
        self._settled = 1 / SETTLED_WITHIN <= ratio <= SETTLED_WITHIN
        # Half way, on a logarithmic scale, once it is about right: single runs are noisy.
        self._morsel_bytes *= ratio**0.5 if self._settled else ratio
        self._splits_tail = (
            self._settled
            and seen.took_us >= self._target_us / 2
            and self._fixed_us <= seen.took_us * FIXED_PART_MAX * 2
        )

    def _learn_fixed(self, seen: Observation, small: list[tuple[int, int]]) -> None:
        if small:
            self._other = _median(small)
        other = self._other or seen
        low, high = sorted((seen, other))
        if low.num_bytes * SIZES_APART > high.num_bytes:
            self._other = other
            self._fixed_us *= FIXED_FADES
        else:
            a_byte_us = max(0.0, high.took_us - low.took_us) / (high.num_bytes - low.num_bytes)
            found_us = max(0.0, low.took_us - a_byte_us * low.num_bytes)
            # The first morsels pay for more than what every one pays, so less is believed at once, more by and by.
            self._fixed_us = min(found_us, (self._fixed_us + found_us) / 2)
            self._other = seen
        self._fixed_us = min(self._fixed_us, seen.took_us)


def _median(ordered: list[tuple[int, int]]) -> Observation:
    middle = (len(ordered) - 1) // 2  # of two the quicker one: the other may have bound an expression
    return Observation(ordered[middle][0], max(1, sorted(took_us for _, took_us in ordered)[middle]))


def share_of_slot(total_bytes: int, morsel_bytes: int, num_slots: int) -> int:
    """`morsel_bytes`, or less where the rows would then not do for every slot."""
    return max(1, min(morsel_bytes, -(-total_bytes // max(1, num_slots))))
