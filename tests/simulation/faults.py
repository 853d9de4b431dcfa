"""What goes wrong in one run: the odds of every message, and what happens to agents when.

A fault strikes when something has happened so many times, which meets the moments that matter more often than a time
would. Each run draws a few kinds of faults and leaves out the others, for many at once hide each other.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

HAPPENINGS = (
    "prepared",
    "task begun",
    "chunk stored",
    "chunk acknowledged",
    "manifest confirmed",
    "reowned",
    "task done",
    "committed",
    "recorded",
    "taken over",
    "partition read",
    "publishing",
)


@dataclass(slots=True, kw_only=True)
class Odds:
    """The chance of each trouble, per message."""

    slow_message: float = 0.0
    lost_call: float = 0.0
    doubled_call: float = 0.0
    broken_stream: float = 0.0
    dropped_chunk: float = 0.0  # by a bug of ours: TCP does not do it
    forgotten_chunk: float = 0.0  # likewise: acknowledged and not stored
    corrupt_chunk: float = 0.0  # on its way
    rotten_chunk: float = 0.0  # in the owner's memory, after its checksum was verified
    slow_task: float = 0.0  # a worker that hangs for some seconds


class Kind(Enum):
    CRASH = "crash"
    FREEZE = "freeze"
    CUT = "cut"
    JUMP = "jump"
    CANCEL = "cancel"
    BREAK = "broken events"  # between client and coordinator, which both live
    JOIN = "join"
    DRAIN = "drain"
    ROT = "rot"  # of a row that is stored, when its checksum has been verified
    FAILING_DISK = "failing disk"  # for good


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Strikes when `happening` has come about `count` times, at the agent in `place`, or at the one where it was."""

    kind: Kind
    happening: str
    count: int
    place: int | None = None
    other: int = 0  # the other end of a cut
    lasts_s: float = 0.0  # until a thaw, a restart (0: never) or the healing of a cut; how far a clock jumps
    silent: bool = False  # a crash of the machine: connections do not break, they go quiet
    coordinator: bool | None = None  # strikes the one that coordinates; False: its neighbour instead
    later_s: float = 0.0


_WEIGHTS = {
    Kind.CRASH: 5,
    Kind.FREEZE: 4,
    Kind.CUT: 2,
    Kind.JUMP: 1,
    Kind.CANCEL: 1,
    Kind.BREAK: 1,
    Kind.JOIN: 2,
    Kind.DRAIN: 2,
}


def draw_odds(rng: random.Random) -> Odds:
    odds = Odds()
    chances = {
        "slow_message": (0.5, 0.1),
        "lost_call": (0.12, 0.1),
        "doubled_call": (0.3, 0.2),
        "broken_stream": (0.4, 0.15),
        "dropped_chunk": (0.05, 0.1),
        "forgotten_chunk": (0.05, 0.1),
        "corrupt_chunk": (0.05, 0.1),
        "rotten_chunk": (0.05, 0.1),
        "slow_task": (0.2, 0.2),
    }
    for name, (share_of_runs, most) in chances.items():
        if rng.random() < share_of_runs:
            setattr(odds, name, rng.random() * most)
    return odds


def draw_faults(rng: random.Random, agents: int) -> list[Fault]:
    """None in a third of the runs, else one to three."""
    if rng.random() < 0.33:
        return []
    return [_draw_fault(rng, agents) for _ in range(rng.choice((1, 1, 1, 2, 3)))]


def draw_storage_faults(rng: random.Random) -> list[Fault]:
    """What agents hold goes bad."""
    if rng.random() > 0.1:
        return []
    happening = rng.choice(("chunk stored", "manifest confirmed", "task done", "committed", "partition read"))
    kind = rng.choice((Kind.ROT, Kind.ROT, Kind.FAILING_DISK))
    return [Fault(kind=kind, happening=happening, count=rng.choice((1, 2, 3, 5, 8, 13)))]


def _draw_fault(rng: random.Random, agents: int) -> Fault:
    kind = rng.choices(list(_WEIGHTS), weights=list(_WEIGHTS.values()))[0]
    lasts_s = {
        Kind.CRASH: rng.choice((0.0, 0.0, rng.uniform(0.01, 3.0))),
        Kind.FREEZE: rng.choice((rng.uniform(0.05, 5.0), rng.uniform(8.0, 60.0))),
        Kind.CUT: rng.choice((rng.uniform(0.05, 5.0), rng.uniform(8.0, 60.0))),
        Kind.JUMP: rng.uniform(1.0, 120.0),
        Kind.CANCEL: 0.0,
        Kind.BREAK: 0.0,
        Kind.JOIN: 0.0,
        Kind.DRAIN: 0.0,
    }[kind]
    place = rng.randrange(agents)
    return Fault(
        kind=kind,
        happening=rng.choice(HAPPENINGS),
        count=rng.choice((1, 1, 2, 3, 5, 8, 13)),
        place=None if rng.random() < 0.4 else place,
        other=(place + rng.randint(1, max(1, agents - 1))) % agents,
        lasts_s=lasts_s,
        silent=rng.random() < 0.3,
        coordinator=rng.choice((True, False, False, None)),
        later_s=rng.choice((0.0, 0.0, rng.uniform(0.0, 0.02))),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long tasks take: `work_s` at most where nobody is slow, and `factors` times that on the agents in those
    places. Agents that join are as fast as they come.
    """

    work_s: float = 0.02
    factors: tuple[float, ...] = ()

    def factor(self, place: int) -> float:
        return self.factors[place] if place < len(self.factors) else 1.0

    @property
    def longest_s(self) -> float:
        """Of a task on the slowest agent."""
        return self.work_s * max(self.factors, default=1.0)


def draw_pace(rng: random.Random, agents: int) -> Pace:
    """In some runs tasks are so long that their lengths tell, one agent is slow, and none is like another."""
    if rng.random() > 0.15:
        return Pace()
    factors = [rng.uniform(1.0, 1.5) for _ in range(agents)]
    factors[rng.randrange(agents)] = rng.uniform(2.0, 8.0)
    return Pace(work_s=rng.uniform(0.1, 1.0), factors=tuple(factors))


def draw_bytes_max(rng: random.Random) -> tuple[int, int]:
    """An agent's memory (0: no limit) and disk: in half of the runs there is little memory, sometimes little disk."""
    if rng.random() < 0.5:
        return 0, 1 << 40
    return rng.randint(3_000, 15_000), rng.randint(0, 4_000) if rng.random() < 0.1 else 1 << 40
