"""What a shuffle is held to: sums per partition before the wire and after it, as values to add and compare."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

WRAP = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSum:
    """Rows of one partition, the wrapping 64-bit sum over them (docs/protocol.md, Hash), and their bytes (Receipts)."""

    partition: int
    rows: int
    content_sum: int
    num_bytes: int = 0

    def __add__(self, other: PartitionSum) -> PartitionSum:
        return PartitionSum(
            partition=self.partition,
            rows=self.rows + other.rows,
            content_sum=(self.content_sum + other.content_sum) % WRAP,
            num_bytes=self.num_bytes + other.num_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSummary:
    """What an attempt sent, taken at the partitioner's input; `wire_bytes` went to other agents.

    `placement_digest` is that of all rows, sent or not: equal where two attempts put the same rows into the same
    partitions; 0 where it was not asked for.
    """

    sums: tuple[PartitionSum, ...]
    rows: int
    wire_bytes: int
    local_bytes: int
    placement_digest: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRead:
    """A partition's rows as released to its reader, with the sums computed anew from them."""

    table: pa.Table
    rows: int
    content_sum: int
    network_rows: int
    num_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Batches kept for pull; `ticket` is what a DoGet asks with."""

    ticket: str
    rows: int
    content_sum: int
