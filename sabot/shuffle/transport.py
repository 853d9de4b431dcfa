"""The shuffle of one agent: its server and its client joined, with the verbs that users and tasks call."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any, TypedDict, Unpack

import pyarrow as pa

from sabot.errors import UsageError
from sabot.native._native import Ledger, NativeSender, SlotPool, ticket_of
from sabot.shuffle.attempts import WRITE_TIMEOUT_S, AttemptWriter, await_confirmation, cut, owners_of_replay
from sabot.shuffle.client import RESUME_S, STREAMS_PER_PEER, Compression, PingReply, ShuffleClient
from sabot.shuffle.partitioning import Partitioning, check_columns, check_partitioning
from sabot.shuffle.processor import Processor
from sabot.shuffle.receipts import PartitionRead, Published
from sabot.shuffle.server import CHUNK_BYTES_MAX, STREAM_IDLE_S, STREAMS_MAX, NewTable, ShuffleServer, check_partition


class TransportLimits(TypedDict, total=False):
    """What may be given to a ShuffleTransport to bound its streams and messages; seconds and bytes."""

    open_wait_s: float
    stream_timeout_s: float
    resume_s: float
    streams_per_peer: int
    compression: Compression
    chunk_bytes_max: int
    stream_idle_s: float
    streams_max: int
    spill_dirs: Sequence[str]
    spill_bytes_max: int


class ShuffleTransport:
    """Both halves of the shuffle. Addresses are "host:port" of Flight ports; thread-safe.

    `audit=False` is for measuring what the audit costs: rows may then be lost or changed without a word.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        advertise_host: str | None = None,
        incarnation: int | None = None,
        slot_pool: SlotPool | None = None,
        ledger: Ledger | None = None,
        open_wait_s: float = 10.0,
        stream_timeout_s: float = 30.0,
        resume_s: float = RESUME_S,
        streams_per_peer: int = STREAMS_PER_PEER,
        compression: Compression = "none",
        chunk_bytes_max: int = CHUNK_BYTES_MAX,
        stream_idle_s: float = STREAM_IDLE_S,
        streams_max: int = STREAMS_MAX,
        spill_dirs: Sequence[str] = (),
        spill_bytes_max: int = 0,
        audit: bool = True,
    ) -> None:
        self._stream_timeout_s = stream_timeout_s
        self._chunk_bytes_max = chunk_bytes_max
        self._audit = audit
        self.server = ShuffleServer(
            host,
            port,
            advertise_host=advertise_host,
            incarnation=incarnation,
            slot_pool=slot_pool,
            ledger=ledger,
            open_wait_s=open_wait_s,
            chunk_bytes_max=chunk_bytes_max,
            stream_idle_s=stream_idle_s,
            streams_max=streams_max,
            spill_dirs=spill_dirs,
            spill_bytes_max=spill_bytes_max,
            verify_checksums=audit,
            verify_loads=audit,
            audits_reads=audit,
        )
        self.client = ShuffleClient(
            stream_timeout_s=stream_timeout_s,
            resume_s=resume_s,
            streams_per_peer=streams_per_peer,
            compression=compression,
            ledger=ledger,
        )
        self.server.native.spill_outboxes_of(self.client.native)
        self.ledger = self.server.native.ledger
        self._lock = threading.Lock()
        self._senders: dict[str, NativeSender] = {}  # guarded by _lock, as the next two; by shuffle id
        self._partitionings: dict[str, Partitioning] = {}
        self._finished: set[str] = set()

    @property
    def address(self) -> str:
        """host:port of this agent's Flight port, as others reach it."""
        return self.server.address

    @property
    def port(self) -> int:
        """The Flight port, as chosen."""
        return self.server.port

    def start_shuffle(
        self,
        shuffle_id: str,
        num_partitions: int,
        agents: Sequence[str],
        processor: Processor | None = None,
        *,
        partitioning: Partitioning | None = None,
        job: str = "",
        weight: float = 1.0,
    ) -> None:
        """Takes part in a shuffle with `agents`, each of them a sender, this one included.

        Partition p belongs to agents[p % len(agents)]. `processor(rows)` runs in the slots on rows as they arrive; its
        results are what receive_partition gives. With `partitioning`, the same on all agents, rows are sent by
        send_rows, otherwise by send_partition. What the shuffle does in slots goes on the account of `job`, of that
        `weight`, as in TaskSlotManager.execute_morsels.
        """
        check_partitioning(partitioning)
        if self.address not in agents:
            raise UsageError(
                f"This agent, {self.address}, is not among the shuffle's agents: {', '.join(agents)}. Name it as its "
                "address says."
            )
        self.server.start_shuffle(shuffle_id, num_partitions, agents, processor, job=job, weight=weight)
        with self._lock:
            if shuffle_id in self._senders or shuffle_id in self._partitionings:
                return
            if partitioning is None:
                self._senders[shuffle_id] = self._open_sender(shuffle_id)
            else:
                self._partitionings[shuffle_id] = partitioning

    def send_partition(
        self, shuffle_id: str, partition_id: int, batch: pa.RecordBatch, target_agent: str | None = None
    ) -> None:
        """Queues rows for the partition's owner, or for `target_agent`; never waits for a peer, but for the disk where
        memory is full.

        What goes wrong on the way is raised by the next call for this shuffle.
        """
        if not isinstance(batch, pa.RecordBatch):
            raise UsageError(f"send_partition takes a pyarrow.RecordBatch, not {type(batch).__name__}.")
        owners = self.server.owners(shuffle_id)
        check_partition(shuffle_id, partition_id, self.server.num_partitions(shuffle_id))
        if target_agent is not None and target_agent not in owners:
            raise UsageError(
                f"Agent {target_agent} takes no part in shuffle {shuffle_id}; these do: {', '.join(owners)}."
            )
        if shuffle_id in self._partitionings:
            raise UsageError(f"Shuffle {shuffle_id} was started with a partitioning. Use send_rows.")
        owner = partition_id % len(owners) if target_agent is None else owners.index(target_agent)
        sum_column = owners.index(self.address) % max(1, batch.num_columns)
        sender = self._sender(shuffle_id)
        for piece in cut(batch, self._chunk_bytes_max):
            self.server.await_disk(self._stream_timeout_s)
            sender.send(piece, partition_id, owner, sum_column)

    def send_rows(
        self, shuffle_id: str, rows: pa.RecordBatch | pa.Table, *, timeout_s: float = WRITE_TIMEOUT_S
    ) -> None:
        """Partitions rows as start_shuffle was told, in a slot where there are slots, and queues them for their owners.

        All rows of a sender have one schema. LimitReached where no slot has come to it within `timeout_s`; then nothing
        of these rows is sent. What goes wrong on the way to a peer is raised by the next call for this shuffle.
        """
        if not isinstance(rows, pa.RecordBatch | pa.Table):
            raise UsageError(f"send_rows takes a pyarrow.RecordBatch or pyarrow.Table, not {type(rows).__name__}.")
        if shuffle_id not in self._partitionings and shuffle_id in self._senders:
            raise UsageError(f"Shuffle {shuffle_id} was started without a partitioning. Use send_partition.")
        sender = self._sender(shuffle_id, rows.schema)
        batches = [rows] if isinstance(rows, pa.RecordBatch) else rows.to_batches()
        if batches:
            self.server.await_disk(timeout_s)
            sender.scatter_and_send(batches, self.server.slots(shuffle_id), timeout_s)

    def finish_shuffle(self, shuffle_id: str, *, timeout_s: float | None = None) -> None:
        """Says that this sender has sent all; a partition is complete when all senders have said so.

        With `timeout_s` it waits until every agent has confirmed what it got; PeerLost names those that have not.
        """
        sender = self._sender(shuffle_id)
        sender.finish()
        with self._lock:
            self._finished.add(shuffle_id)
        if timeout_s is not None:
            await_confirmation(sender, shuffle_id, timeout_s)

    def receive_partition(self, shuffle_id: str, partition_id: int, timeout_s: float = 30.0) -> pa.RecordBatchReader:
        """The partition's rows, audited, once every sender has finished. LimitReached at the deadline; UsageError
        naming the owner where the partition is not ours; ShuffleIntegrityError where rows are wrong."""
        return self.server.receive_partition(shuffle_id, partition_id, timeout_s)

    def register_partition(self, shuffle_id: str, partition_id: int, batch: pa.RecordBatch) -> None:
        """Publishes a batch for pull by `fetch_partition` or any Flight client."""
        self.server.register_partition(shuffle_id, partition_id, batch)

    def fetch_partition(
        self, agent: str, shuffle_id: str, partition_id: int, *, timeout_s: float = 30.0
    ) -> pa.RecordBatchReader:
        """Pulls a registered partition, audited; from this agent itself without the wire."""
        return self.fetch(agent, shuffle_id, partition_id, timeout_s=timeout_s)

    def end_shuffle(self, shuffle_id: str) -> None:
        """Frees the shuffle here, and raises what went wrong in sending it, if anything did.

        After finish_shuffle it first waits until every agent has confirmed what it got, at most `stream_timeout_s`;
        PeerLost names those that have not. Without finish_shuffle what is not sent yet is given up.
        """
        with self._lock:
            sender = self._senders.pop(shuffle_id, None)
            self._partitionings.pop(shuffle_id, None)
            finished = shuffle_id in self._finished
            self._finished.discard(shuffle_id)
        try:
            if sender is not None and finished:
                await_confirmation(sender, shuffle_id, self._stream_timeout_s)
        finally:
            self.drop(shuffle_id)

    def open_shuffle(
        self,
        shuffle_id: str,
        *,
        num_partitions: int,
        owners: Sequence[str],
        owner_of: Sequence[int] = (),
        schema: pa.Schema | None = None,
        job: str = "",
        weight: float = 1.0,
    ) -> None:
        """Opens a job's shuffle for receiving, in epoch 0; which attempts count, the reader is told. Repeats do
        nothing. `owner_of` is the owner of each partition as an index into `owners`; left out, they are dealt out in
        turn. What the shuffle does in slots goes on the account of `job`, of that `weight`.
        """
        self.server.start_shuffle(
            shuffle_id, num_partitions, owners, senders=0, owner_of=owner_of, schema=schema, job=job, weight=weight
        )

    def reown(
        self, shuffle_id: str, *, given_up: Sequence[int], gone: Collection[str] = (), **table: Unpack[NewTable]
    ) -> None:
        """Gives a job's shuffle the owner table of a new epoch; see ShuffleServer.reown. What is being pulled from
        the addresses that are `gone` ends."""
        self.server.reown(shuffle_id, given_up=given_up, **table)
        for address in gone:
            self.client.end_pulls(shuffle_id, address)

    def attempt_writer(
        self,
        shuffle_id: str,
        *,
        task: int,
        attempt: int,
        partitioning: Partitioning,
        partitions: Collection[int] | None = None,
        digest_placement: bool = False,
    ) -> AttemptWriter:
        """A writer of one attempt, by the owner table of now, into a shuffle that was opened with a schema, which its
        rows have.

        Of all rows that it is given it sends those of `partitions`, None for all. `digest_placement`: its summary is to
        have a placement digest.
        """
        if not (0 <= task < 1 << 31 and 0 <= attempt < 1 << 31):
            raise UsageError(f"task {task} and attempt {attempt} must be from 0 to {(1 << 31) - 1}.")
        schema = self.server.schema(shuffle_id)
        if schema is None:
            raise UsageError(f"Shuffle {shuffle_id} was opened without a schema. Give open_shuffle schema=.")
        check_columns(partitioning, schema)
        epoch, owner_of = self.server.owner_table(shuffle_id)
        owners, owner_of = owners_of_replay(self.server.owners(shuffle_id), owner_of, partitions)
        sender = self.client.open_sender(
            shuffle_id,
            task=task,
            attempt=attempt,
            owners=owners,
            num_partitions=len(owner_of),
            incarnation=self.server.incarnation,
            owner_of=owner_of,
            epoch=epoch,
            digest_placement=digest_placement,
            server=self.server.native,
            my_owner=owners.index(self.address) if self.address in owners else -1,
            schema=schema,
            partitioning=partitioning,
            chunk_bytes_max=self._chunk_bytes_max,
            audit=self._audit,
        )
        return AttemptWriter(
            sender,
            shuffle_id=shuffle_id,
            epoch=epoch,
            slots=self.server.slots(shuffle_id),
            await_disk=self.server.await_disk,
            chunk_bytes_max=self._chunk_bytes_max,
        )

    def read_partition(
        self, shuffle_id: str, partition: int, *, attempts: Sequence[tuple[int, int]], timeout_s: float = 30.0
    ) -> PartitionRead:
        """The rows that exactly these (task, attempt) pairs sent, audited in the slots."""
        return self.server.read_partition(shuffle_id, partition, attempts=attempts, timeout_s=timeout_s)

    def publish(self, name: str, index: int, batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> Published:
        """Keeps batches for pull under a name and an index."""
        return self.server.publish(name, index, batches, schema)

    def published_names(self) -> dict[str, float]:
        """The names published here, each with the age in seconds of its oldest part."""
        return dict(self.server.native.published_names())

    def fetch(self, address: str, name: str, index: int, *, timeout_s: float = 30.0) -> pa.RecordBatchReader:
        """Pulls what is published at `address`, audited; from this agent itself without the wire."""
        if address == self.address:
            return self.server.find(name, index)
        return self.client.fetch_ticket(address, ticket_of(name, index), timeout_s=timeout_s)

    def drop(self, prefix: str) -> None:
        """Ends every shuffle and published name equal to `prefix` or below it ("prefix/...")."""
        self.client.end_shuffle(prefix)
        self.server.end_shuffle(prefix)

    def ping(self, address: str, *, timeout_s: float = 1.0) -> PingReply:
        """Asks an agent's native code whether it lives; PeerLost at the deadline."""
        return self.client.ping(address, timeout_s=timeout_s)

    def row_bytes_of(self, shuffle_id: str) -> float:
        """The mean bytes of the shuffle's rows that came to this agent; 0 where none did."""
        return self.server.native.row_bytes_of(shuffle_id)

    def stored_bytes_of(self, shuffle_id: str, partition: int) -> int:
        """About how many bytes of `partition` this agent holds, whoever sent them; 0 where it knows no such shuffle."""
        return self.server.native.stored_bytes_of(shuffle_id, partition)

    def stats(self) -> dict[str, Any]:
        """Counters and bytes held, by name."""
        stats: dict[str, Any] = self.server.native.stats()
        return stats

    def close(self) -> None:
        """Ends waits, streams and the port; may be called again."""
        self.server.close()
        self.client.close()

    def _sender(self, shuffle_id: str, schema: pa.Schema | None = None) -> NativeSender:
        """The shuffle's sender here. Where start_shuffle was given a partitioning it is made for the first rows, whose
        schema says where the columns are, or at the end without any."""
        with self._lock:
            sender = self._senders.get(shuffle_id)
            partitioning = self._partitionings.get(shuffle_id)
            if sender is None and partitioning is not None:
                if schema is not None:
                    check_columns(partitioning, schema)
                given = {} if schema is None else {"schema": schema, "partitioning": partitioning}
                sender = self._senders[shuffle_id] = self._open_sender(shuffle_id, **given)
        if sender is None:
            raise UsageError(f"Shuffle {shuffle_id} is not started on agent {self.address}. Call start_shuffle first.")
        return sender

    def _open_sender(self, shuffle_id: str, **given: Any) -> NativeSender:
        owners = self.server.owners(shuffle_id)
        me = owners.index(self.address)
        return self.client.open_sender(
            shuffle_id,
            task=me,
            attempt=0,
            owners=owners,
            num_partitions=self.server.num_partitions(shuffle_id),
            incarnation=self.server.incarnation,
            server=self.server.native,
            my_owner=me,
            chunk_bytes_max=self._chunk_bytes_max,
            audit=self._audit,
            **given,
        )

    def __enter__(self) -> ShuffleTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
