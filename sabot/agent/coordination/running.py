"""An attempt under way, as the coordinator knows it. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from sabot.dataflow.stage import PartitionSplit, Split, StoredSplit
from sabot.wire.agent_pb2 import RunTaskReply

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

    def needs(self, agent: int) -> bool:
        """Whether it needs the agent, or the owner table as it was when it began to read."""
        pulls = isinstance(self.split, PartitionSplit) and self.split.share is not None
        return pulls or self.moves or self.agent == agent

    def reads(self, partitions: frozenset[int]) -> bool:
        return isinstance(self.split, PartitionSplit) and self.split.partition in partitions


def sent_epoch_of(reply: RunTaskReply) -> int | None:
    """By which owner table the attempt has sent; None where it has sent nothing."""
    return reply.sent_epoch if reply.HasField("sent_epoch") else None
