"""Whether there should be more slots or fewer: a state machine without clock or slots, fed with what was observed.

More as soon as work has waited through `GROW_AFTER_S` of observations, doubling, so that a burst is met in a few steps;
fewer, one at a time, only after `SHRINK_AFTER_S` in which one slot less would have been enough. What lies between the
two keeps the number as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from sabot.errors import UsageError

OBSERVE_EVERY_S = 0.25
GROW_AFTER_S = 0.5
SHRINK_AFTER_S = 10.0
# Slots that fewer would have to carry at most this busy: more, and the next burst would bring the slot back at once.
BUSY_MAX = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLoad:
    """What was seen at `now_s`: slots, morsels that wait, and the slot time used since the slots were made."""

    now_s: float
    num_slots: int
    queue_depth: int
    busy_s: float


class Autoscaler:
    """Keeps the number of slots from `slots_min` to `slots_max`."""

    def __init__(self, *, slots_min: int, slots_max: int) -> None:
        if not 1 <= slots_min <= slots_max:
            raise UsageError(f"autoscaling from {slots_min} to {slots_max} slots: give 1 <= min <= max")
        self._min = slots_min
        self._max = slots_max
        self._last: SlotLoad | None = None
        self._waiting_since_s: float | None = None
        self._idle_since_s: float | None = None

    def observe(self, load: SlotLoad) -> int:
        """How many slots there should be now."""
        last, self._last = self._last, load
        wanted = min(max(load.num_slots, self._min), self._max)
        if wanted != load.num_slots or last is None or last.num_slots != load.num_slots:
            self._waiting_since_s = self._idle_since_s = None  # what was seen before was of other slots
            return wanted
        # Counters of a slot go with it, so the sum may fall: that is no negative work.
        busy_slots = max(0.0, load.busy_s - last.busy_s) / max(load.now_s - last.now_s, 1e-9)
        self._waiting_since_s = _since(self._waiting_since_s, load.queue_depth > 0 and last.queue_depth > 0, last.now_s)
        spare = load.queue_depth == 0 and busy_slots <= BUSY_MAX * (load.num_slots - 1)
        self._idle_since_s = _since(self._idle_since_s, spare, last.now_s)
        if self._waiting_since_s is not None and load.now_s - self._waiting_since_s >= GROW_AFTER_S:
            self._waiting_since_s = load.now_s
            return min(self._max, 2 * load.num_slots)
        if self._idle_since_s is not None and load.now_s - self._idle_since_s >= SHRINK_AFTER_S:
            self._idle_since_s = load.now_s
            return max(self._min, load.num_slots - 1)
        return load.num_slots


def _since(since_s: float | None, holds: bool, began_s: float) -> float | None:
    """Since when something holds; `began_s`: since when at the latest, if it does and did not before."""
    if not holds:
        return None
    return began_s if since_s is None else since_s
