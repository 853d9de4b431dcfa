"""Which agent of a job owns which partition, in one epoch. Values only; agents are indices into the job's list.

It is the same for all shuffles of the job, so that both sides of a join meet.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

EPOCHS_OF_A_COORDINATOR = 1 << 16
"""Epochs are ordered over all coordinators of a job: the first of them begins with 0, the next with this, and so on.
The attempts of a coordinator are numbered from its first epoch on, too, so that no two have one number."""


def coordinator_of(epoch: int) -> int:
    """Which coordinator of the job, in their order, an epoch or attempt is of."""
    return epoch // EPOCHS_OF_A_COORDINATOR


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerTable:
    """`owners` by partition, as many as the widest shuffle has; `lost` are the agents that the job has given up or
    that have left, and `joining` those that came while it ran and take no part yet.
    """

    epoch: int
    agents: int
    owners: tuple[int, ...]
    lost: frozenset[int] = frozenset()
    joining: frozenset[int] = frozenset()
    living: tuple[int, ...] = field(init=False, repr=False, compare=False)  # asked for at every event of a job

    def __post_init__(self) -> None:
        absent = self.lost | self.joining
        object.__setattr__(self, "living", tuple(agent for agent in range(self.agents) if agent not in absent))

    @classmethod
    def first(cls, *, agents: int, partitions: int) -> OwnerTable:
        """Epoch 0: partitions dealt out in turn."""
        return cls(epoch=0, agents=agents, owners=tuple(partition % agents for partition in range(partitions)))

    def owned_by(self, agent: int) -> frozenset[int]:
        return frozenset(partition for partition, owner in enumerate(self.owners) if owner == agent)

    def without(self, agent: int) -> OwnerTable:
        """The next epoch: what `agent` owned is dealt out in turn to those that are left, of whom there is one."""
        lost = self.lost | {agent}
        living = [other for other in self.living if other != agent]
        owners = list(self.owners)
        for turn, partition in enumerate(sorted(self.owned_by(agent))):
            owners[partition] = living[turn % len(living)]
        return replace(self, epoch=self.epoch + 1, owners=tuple(owners), lost=lost)

    def handed_over(self, agents: frozenset[int]) -> OwnerTable:
        """The next epoch: what `agents` own goes to the others that live, of whom there is one, and first to those who
        own least.
        """
        owned = Counter(self.owners)
        takers = [agent for agent in self.living if agent not in agents]
        owners = list(self.owners)
        for partition, owner in enumerate(self.owners):
            if owner in agents:
                owners[partition] = taker = min(takers, key=lambda agent: owned[agent])
                owned[taker] += 1
        return replace(self, epoch=self.epoch + 1, owners=tuple(owners))

    def left_by(self, agent: int) -> OwnerTable:
        """`agent`, which owns nothing, takes part no longer."""
        return replace(self, lost=self.lost | {agent})

    def with_newcomer(self) -> OwnerTable:
        """With one more agent, which owns nothing and so changes nothing for the others; it is yet to be `admitted`."""
        return replace(self, agents=self.agents + 1, joining=self.joining | {self.agents})

    def admitted(self, agent: int) -> OwnerTable:
        """`agent` takes part from now on."""
        return replace(self, joining=self.joining - {agent})
