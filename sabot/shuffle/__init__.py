"""The shuffle: rows regrouped into partitions over agents, audited end to end."""

from sabot.shuffle.client import PingReply, ShuffleClient
from sabot.shuffle.partitioning import (
    BroadcastPartitioning,
    ColumnPartitioning,
    HashPartitioning,
    OnePartitioning,
    Partitioning,
    RangePartitioning,
    RoundRobinPartitioning,
)
from sabot.shuffle.receipts import AttemptSummary, PartitionRead, PartitionSum, Published
from sabot.shuffle.server import ShuffleServer
from sabot.shuffle.transport import ShuffleTransport

__all__ = [
    "AttemptSummary",
    "BroadcastPartitioning",
    "ColumnPartitioning",
    "HashPartitioning",
    "OnePartitioning",
    "PartitionRead",
    "PartitionSum",
    "Partitioning",
    "PingReply",
    "Published",
    "RangePartitioning",
    "RoundRobinPartitioning",
    "ShuffleClient",
    "ShuffleServer",
    "ShuffleTransport",
]
