"""Where a task that shuffles sends its rows."""

from __future__ import annotations

import pyarrow as pa

from sabot.dataflow.ranges import HomeShuffle, RangeShuffle
from sabot.dataflow.splits import home_partition
from sabot.dataflow.stage import BroadcastShuffle, HashShuffle, RoundRobinShuffle, Shuffle
from sabot.shuffle.partitioning import (
    BroadcastPartitioning,
    HashPartitioning,
    OnePartitioning,
    Partitioning,
    RangePartitioning,
    RoundRobinPartitioning,
)


def partitioning_of(output: Shuffle, *, task: int, tasks: int, num_partitions: int, boundaries: bytes) -> Partitioning:
    """For task number `task` of `tasks`; `boundaries` are those of a RangeShuffle."""
    match output:
        case HashShuffle(keys=keys):
            return HashPartitioning(keys)
        case BroadcastShuffle(keys=keys):
            return BroadcastPartitioning(keys)
        case RoundRobinShuffle():
            return RoundRobinPartitioning()
        case HomeShuffle():
            return OnePartitioning(home_partition(task, tasks=tasks, num_partitions=num_partitions))
        case RangeShuffle(sorting=sorting):
            return RangePartitioning(sorting, _unpacked(boundaries), tie_turn=(task, tasks))


def _unpacked(boundaries: bytes) -> pa.RecordBatch:
    table = pa.ipc.open_stream(boundaries).read_all().combine_chunks()
    batches = table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
