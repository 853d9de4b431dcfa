"""When autoscaling gives more slots, when fewer, and when it leaves them alone; no slots, no clock."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from sabot.errors import UsageError
from sabot.slots.autoscale import GROW_AFTER_S, OBSERVE_EVERY_S, SHRINK_AFTER_S, Autoscaler, SlotLoad


class World:
    """Slots under a load that the test sets: busy slots and waiting morsels, observed as the agent does."""

    def __init__(self, *, slots: int, slots_min: int = 1, slots_max: int = 8) -> None:
        self.scaler = Autoscaler(slots_min=slots_min, slots_max=slots_max)
        self.slots = slots
        self.now_s = 100.0
        self.busy_s = 0.0

    def pass_time(self, seconds: float, *, busy: float, waiting: int) -> Iterator[int]:
        """The number of slots after each observation."""
        for _ in range(round(seconds / OBSERVE_EVERY_S)):
            self.now_s += OBSERVE_EVERY_S
            self.busy_s += min(busy, self.slots) * OBSERVE_EVERY_S
            load = SlotLoad(now_s=self.now_s, num_slots=self.slots, queue_depth=waiting, busy_s=self.busy_s)
            self.slots = self.scaler.observe(load)
            yield self.slots


def test_slots_double_while_work_waits() -> None:
    world = World(slots=1)
    seen = list(world.pass_time(6 * GROW_AFTER_S, busy=99, waiting=5))
    assert [count for count, before in zip(seen, [1, *seen], strict=False) if count != before] == [2, 4, 8]


def test_work_that_waited_for_a_moment_changes_nothing() -> None:
    world = World(slots=2)
    for _ in range(20):
        assert set(world.pass_time(OBSERVE_EVERY_S, busy=2, waiting=5)) == {2}
        assert set(world.pass_time(OBSERVE_EVERY_S, busy=2, waiting=0)) == {2}


def test_idle_slots_go_one_at_a_time_to_the_minimum() -> None:
    world = World(slots=5, slots_min=2)
    seen = list(world.pass_time(5 * SHRINK_AFTER_S, busy=0, waiting=0))
    assert sorted(set(seen), reverse=True) == [5, 4, 3, 2]
    assert seen == sorted(seen, reverse=True)
    assert seen.index(4) >= SHRINK_AFTER_S / OBSERVE_EVERY_S - 1


def test_slots_that_fewer_could_not_carry_stay() -> None:
    world = World(slots=4)
    assert set(world.pass_time(3 * SHRINK_AFTER_S, busy=2.5, waiting=0)) == {4}


def test_steady_load_comes_to_rest(rng: random.Random) -> None:
    for _ in range(50):
        world = World(slots=rng.randint(1, 8))
        busy = rng.uniform(0, 8)
        for _ in range(round(12 * SHRINK_AFTER_S / OBSERVE_EVERY_S)):
            list(world.pass_time(OBSERVE_EVERY_S, busy=busy, waiting=3 if busy > world.slots else 0))
        settled = set()
        for _ in range(round(4 * SHRINK_AFTER_S / OBSERVE_EVERY_S)):
            settled |= set(world.pass_time(OBSERVE_EVERY_S, busy=busy, waiting=3 if busy > world.slots else 0))
        assert len(settled) == 1, busy


def test_slots_outside_the_limits_are_brought_inside_at_once() -> None:
    assert list(World(slots=1, slots_min=3).pass_time(OBSERVE_EVERY_S, busy=0, waiting=0)) == [3]
    assert list(World(slots=9, slots_max=8).pass_time(OBSERVE_EVERY_S, busy=9, waiting=9)) == [8]


def test_limits_that_cross_are_a_usage_error() -> None:
    for low, high in ((0, 2), (3, 2)):
        with pytest.raises(UsageError, match="min <= max"):
            Autoscaler(slots_min=low, slots_max=high)
