"""The sending and pulling half of the shuffle, usable without a server of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import pyarrow as pa

from sabot.native._native import Ledger, NativeClient, NativeSender, NativeServer, ticket_of
from sabot.shuffle.partitioning import (
    OnePartitioning,
    Partitioning,
    RangePartitioning,
    RoundRobinPartitioning,
    bounds_of,
)
from sabot.shuffle.receipts import PartitionRead

RESUME_S = 2.0
_BY_NUMBER = RoundRobinPartitioning()  # also for senders that name each partition themselves
STREAMS_PER_PEER = 2
Compression = Literal["none", "lz4", "zstd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PingReply:
    """Who answered."""

    address: str
    incarnation: int


class ShuffleClient:
    """Connections to peers. `stream_timeout_s` bounds each DoPut: a peer frozen for longer is lost.

    A DoPut that breaks goes on where it was over another, until the peer has given no sign of life for `resume_s`.
    What is sent to a peer for a shuffle goes over up to `streams_per_peer` DoPuts at a time, each with a connection of
    its own, opened as chunks queue up and closed when idle. `compression` is of the rows on the wire.
    """

    def __init__(
        self,
        *,
        stream_timeout_s: float = 30.0,
        resume_s: float = RESUME_S,
        streams_per_peer: int = STREAMS_PER_PEER,
        compression: Compression = "none",
        ledger: Ledger | None = None,
    ) -> None:
        self.native = NativeClient(
            stream_timeout_s=stream_timeout_s,
            resume_s=resume_s,
            streams_per_peer=streams_per_peer,
            compression=compression,
            ledger=ledger,
        )

    def fetch_partition(
        self, agent: str, shuffle_id: str, partition_id: int, *, timeout_s: float = 30.0
    ) -> pa.RecordBatchReader:
        """Pulls a registered partition from the agent at Flight address `agent`, audited and whole."""
        return self.fetch_ticket(agent, ticket_of(shuffle_id, partition_id), timeout_s=timeout_s)

    def fetch_ticket(self, agent: str, ticket: str, *, timeout_s: float = 30.0) -> pa.RecordBatchReader:
        """Pulls what `ticket` names (docs/protocol.md, Tickets)."""
        schema, batches = self.native.fetch(agent, ticket, timeout_s)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def fetch_share(
        self,
        agent: str,
        shuffle_id: str,
        partition: int,
        *,
        attempts: Sequence[int],
        share: tuple[int, int],
        key_columns: Sequence[int],
        timeout_s: float = 30.0,
    ) -> PartitionRead:
        """Pulls a share of a job's partition from its owner; see sabot.shuffle.share_reader."""
        schema, batches, rows, content_sum, num_bytes = self.native.fetch_share(
            agent, shuffle_id, partition, attempts, share=share, key_columns=key_columns, timeout_s=timeout_s
        )
        table = pa.Table.from_batches(batches, schema)
        return PartitionRead(table=table, rows=rows, content_sum=content_sum, network_rows=rows, num_bytes=num_bytes)

    def end_pulls(self, shuffle_id: str, agent: str) -> None:
        """Ends what is being pulled of a shuffle from an agent that is lost."""
        self.native.end_pulls(shuffle_id, agent)

    def ping(self, agent: str, *, timeout_s: float = 1.0) -> PingReply:
        """Asks the agent's native code whether it lives; PeerLost at the deadline."""
        return PingReply(address=agent, incarnation=self.native.ping(agent, timeout_s))

    def open_sender(
        self,
        shuffle_id: str,
        *,
        task: int,
        attempt: int,
        owners: Sequence[str],
        num_partitions: int,
        incarnation: int,
        owner_of: Sequence[int] | None = None,
        epoch: int = 0,
        server: NativeServer | None = None,
        my_owner: int = -1,
        schema: pa.Schema | None = None,
        partitioning: Partitioning = _BY_NUMBER,
        chunk_bytes_max: int = 4 << 20,
        audit: bool = True,
        digest_placement: bool = False,
    ) -> NativeSender:
        """A sender for one attempt; `server` and `my_owner` say where this agent's own chunks go.

        `owner_of` names the owner of each partition by its index in `owners`, or by one beyond them: rows of that
        partition are not sent. Left out, partitions are dealt out in turn.
        """
        return NativeSender(
            self.native,
            server,
            shuffle_id=shuffle_id,
            incarnation=incarnation,
            task=task,
            attempt=attempt,
            owners=list(owners),
            my_owner=my_owner,
            num_partitions=num_partitions,
            owner_of=owner_of,
            epoch=epoch,
            schema=schema,
            keys=partitioning.keys,
            partitioning=partitioning.name,
            bounds=bounds_of(partitioning),
            tie_turn=partitioning.tie_turn if isinstance(partitioning, RangePartitioning) else (0, 0),
            one_partition=partitioning.partition if isinstance(partitioning, OnePartitioning) else 0,
            chunk_bytes_max=chunk_bytes_max,
            audit=audit,
            digest_placement=digest_placement,
        )

    def end_shuffle(self, shuffle_id: str) -> None:
        """Closes the streams of the shuffle and of those below it; what was queued is undelivered."""
        self.native.end(shuffle_id)

    def close(self) -> None:
        """Closes every connection; waits up to `stream_timeout_s` for a peer that hangs."""
        self.native.close()

    def __enter__(self) -> ShuffleClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
