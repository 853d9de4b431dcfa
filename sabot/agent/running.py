"""An attempt under way, as the coordinator knows it. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from sabot.dataflow.stage import PartitionSplit, Split, StoredSplit

Partitions = frozenset[int] | None
"""Some partitions of a shuffle, or all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An attempt under way, what it reads, and what it sends. `second`: there was another one, which was slow."""

    task: int
    agent: int
    attempt: int
    partitions: Partitions
    split: Split
    since_s: float
    second: bool = False

    @property
    def moves(self) -> bool:
        """Whether it sends on what the agent holds, and makes nothing."""
        return isinstance(self.split, StoredSplit)

    def needs(self, agent: int, *, sends: bool) -> bool:
        """Whether it needs the agent, or the owner table as it was; `sends`: its stage shuffles."""
        pulls = isinstance(self.split, PartitionSplit) and self.split.share is not None
        return sends or pulls or self.agent == agent

    def reads(self, partitions: frozenset[int]) -> bool:
        return isinstance(self.split, PartitionSplit) and self.split.partition in partitions
