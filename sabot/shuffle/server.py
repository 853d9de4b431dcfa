"""The receiving half of the shuffle: an Arrow Flight server with the partitions that this agent holds."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TypedDict, Unpack

import pyarrow as pa

from sabot.errors import LimitReached, UsageError
from sabot.native._native import Ledger, NativeServer, SlotAccount, SlotPool
from sabot.shuffle.processor import KeptProcessor, Processor
from sabot.shuffle.receipts import PartitionRead, Published
from sabot.shuffle.stored_partition import StoredPartition

CHUNK_BYTES_MAX = 4 << 20
STREAM_IDLE_S = 120.0
STREAMS_MAX = 1024
_STRAY_WAIT_S = 1.0


def new_incarnation() -> int:
    """A random 64-bit number that tells this start of an agent from every other."""
    return secrets.randbits(64)


class NewTable(TypedDict):
    """Who owns which partition from `epoch` on, by index into `owners`: the agents so far, and those that have come."""

    epoch: int
    owners: Sequence[str]
    owner_of: Sequence[int]


class ShuffleServer:
    """Listens from construction to `close()`; port 0 means any free one.

    A connection over which nothing has gone for `stream_idle_s` is cut; with `streams_max` streams open another one is
    refused: LimitReached. What does not fit into the `ledger`'s limit goes to files in `spill_dirs`, where there are
    any, of at most `spill_bytes_max` bytes in all (0: what the disks have).
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        advertise_host: str | None = None,
        incarnation: int | None = None,
        slot_pool: SlotPool | None = None,
        open_wait_s: float = 10.0,
        chunk_bytes_max: int = CHUNK_BYTES_MAX,
        stream_idle_s: float = STREAM_IDLE_S,
        streams_max: int = STREAMS_MAX,
        ledger: Ledger | None = None,
        spill_dirs: Sequence[str] = (),
        spill_bytes_max: int = 0,
        verify_checksums: bool = True,
        verify_loads: bool = True,
        check_credits: bool = True,
        audits_reads: bool = True,
        dedupe: bool = True,
        check_manifests: bool = True,
        check_epochs: bool = True,
    ) -> None:
        if isinstance(spill_dirs, str) or spill_bytes_max < 0:
            raise UsageError(
                f"spill_dirs is a list of folders and spill_bytes_max at least 0, not {spill_dirs!r} and "
                f"{spill_bytes_max}."
            )
        self.incarnation = new_incarnation() if incarnation is None else incarnation
        self._host = advertise_host or host
        self._slot_pool = slot_pool
        self._lock = threading.Lock()  # guards the five below
        self._guards = {"dedupe": dedupe, "check_manifests": check_manifests, "check_epochs": check_epochs}
        self._partitions_of: dict[str, int] = {}
        self._owners_of: dict[str, list[str]] = {}
        self._tables_of: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._schema_of: dict[str, pa.Schema | None] = {}
        self._slots_of: dict[str, SlotAccount | None] = {}
        self.native = NativeServer(
            host=host,
            port=port,
            advertise_host=self._host,
            incarnation=self.incarnation,
            open_wait_s=open_wait_s,
            batch_bytes_max=chunk_bytes_max,
            stream_idle_s=stream_idle_s,
            streams_max=streams_max,
            ledger=ledger,
            spill_dirs=list(spill_dirs),
            spill_bytes_max=spill_bytes_max,
            verify_checksums=verify_checksums,
            verify_loads=verify_loads,
            check_credits=check_credits,
            audits_reads=audits_reads,
        )

    @property
    def port(self) -> int:
        """The Flight port, as chosen."""
        return self.native.port

    @property
    def address(self) -> str:
        """host:port as other agents reach it."""
        return f"{self._host}:{self.port}"

    def start_shuffle(
        self,
        shuffle_id: str,
        num_partitions: int,
        agents: Sequence[str],
        processor: Processor | None = None,
        *,
        senders: int | None = None,
        owner_of: Sequence[int] = (),
        schema: pa.Schema | None = None,
        job: str = "",
        weight: float = 1.0,
    ) -> None:
        """Opens a shuffle for receiving. Partition p belongs to agents[p % len(agents)]; every agent is a sender.

        `senders=0` leaves it to a coordinator to say which attempts count, and refuses rows of others' partitions;
        then `owner_of` may name another owner of each partition, as an index into `agents`. What the shuffle does in
        slots goes on the account of `job`, of that `weight`.
        """
        _check_shuffle(shuffle_id, num_partitions, agents, unique=senders != 0)
        if processor is not None and self._slot_pool is None:
            raise UsageError(
                "A processor runs in slots, and this server has none. Use an AgentContext's shuffle_transport, or give "
                "slot_pool=."
            )
        slots = None if self._slot_pool is None else SlotAccount(self._slot_pool, job, weight)
        with self._lock:
            self._check_same(shuffle_id, agents, schema)
            self.native.open_shuffle(
                shuffle_id,
                num_partitions=num_partitions,
                owner_count=len(agents),
                my_owner=max((index for index, agent in enumerate(agents) if agent == self.address), default=-1),
                sender_count=len(agents) if senders is None else senders,
                owners_fixed=senders == 0,
                owner_of=owner_of,
                schema=schema,
                processor=None if processor is None else KeptProcessor(processor),
                slots=slots,
                **self._guards,
            )
            self._partitions_of[shuffle_id] = num_partitions
            self._owners_of[shuffle_id] = list(agents)
            self._tables_of[shuffle_id] = (0, tuple(owner_of))
            self._schema_of[shuffle_id] = schema
            self._slots_of[shuffle_id] = slots

    def reown(self, shuffle_id: str, *, given_up: Sequence[int], **table: Unpack[NewTable]) -> None:
        """From now on only what is of the table's epoch is taken, by that table, and nothing from the incarnations
        `given_up`.

        What was confirmed before stays readable. A repeat does nothing, nor does a table that has been overtaken.
        """
        self.num_partitions(shuffle_id)
        epoch, owners, owner_of = table["epoch"], table["owners"], table["owner_of"]
        with self._lock:
            self.native.reown(shuffle_id, epoch=epoch, owner_of=owner_of, given_up=given_up)
            if epoch > self._tables_of[shuffle_id][0]:
                self._tables_of[shuffle_id] = (epoch, tuple(owner_of))
                known = self._owners_of[shuffle_id]
                self._owners_of[shuffle_id] = [*known, *owners[len(known) :]]

    def receive_partition(self, shuffle_id: str, partition_id: int, timeout_s: float = 30.0) -> pa.RecordBatchReader:
        """The partition's rows, audited, once every sender has finished; LimitReached at the deadline.

        Rows that are on disk are loaded as they are read; what is wrong with them is raised then, before the last of
        them are given. With a processor these are its results. A partition that nobody sent to is empty, with the
        senders' schema.
        """
        deadline = time.monotonic() + timeout_s
        self._check_ours(shuffle_id, partition_id)
        if not self.native.wait_senders(shuffle_id, timeout_s):
            raise LimitReached(
                f"Shuffle {shuffle_id} was not complete within {timeout_s:g} s: not every sender has called "
                "finish_shuffle. Wait for them, or give a larger timeout_s.",
                shuffle=shuffle_id,
            )
        attempts = self.native.confirmed_attempts(shuffle_id)
        left_s = max(0.0, deadline - time.monotonic())
        return self.open_partition(shuffle_id, partition_id, attempts=attempts).stream(left_s)

    def read_partition(
        self, shuffle_id: str, partition: int, *, attempts: Sequence[tuple[int, int]], timeout_s: float = 30.0
    ) -> PartitionRead:
        """What exactly these (task, attempt) pairs sent, audited in the slots; ShuffleIntegrityError otherwise."""
        check_partition(shuffle_id, partition, self.num_partitions(shuffle_id))
        if not self.native.holds(shuffle_id, partition):
            raise self._not_ours(shuffle_id, partition)
        opened = self.open_partition(shuffle_id, partition, attempts=attempts)
        table = opened.all(timeout_s)
        return PartitionRead(
            table=table,
            rows=opened.rows,
            content_sum=opened.content_sum,
            network_rows=opened.network_rows,
            num_bytes=opened.num_bytes,
        )

    def open_partition(
        self, shuffle_id: str, partition: int, *, attempts: Sequence[tuple[int, int]], loaded_bytes_max: int = 0
    ) -> StoredPartition:
        """As `read_partition`, but piece by piece: of what is on disk about `loaded_bytes_max` are loaded at a time
        (0: 32 MiB, and at most an eighth of the memory limit)."""
        num_partitions = self.num_partitions(shuffle_id)
        native = self.native.open_partition(
            shuffle_id,
            partition,
            attempts,
            num_partitions=num_partitions,
            slots=self.slots(shuffle_id),
            loaded_bytes_max=loaded_bytes_max,
        )
        return StoredPartition(native)

    def register_partition(self, shuffle_id: str, partition_id: int, batch: pa.RecordBatch) -> None:
        """Publishes a batch for pull by `fetch_partition` or any Flight client."""
        if not isinstance(batch, pa.RecordBatch):
            raise UsageError(f"register_partition takes a pyarrow.RecordBatch, not {type(batch).__name__}.")
        self.publish(shuffle_id, partition_id, [batch], batch.schema)

    def publish(self, name: str, index: int, batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> Published:
        """Keeps batches for pull under a name and an index."""
        ticket, rows, content_sum = self.native.publish(name, index, list(batches), schema)
        return Published(ticket=ticket, rows=rows, content_sum=content_sum)

    def add_published(self, name: str, index: int, batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> None:
        """Keeps batches for what `finish_published` makes known: meanwhile they may go to disk."""
        self.native.add(name, index, list(batches), schema)

    def finish_published(self, name: str, index: int) -> Published:
        """Publishes all that was added under a name and an index."""
        ticket, rows, content_sum = self.native.finish(name, index)
        return Published(ticket=ticket, rows=rows, content_sum=content_sum)

    def find(self, name: str, index: int) -> pa.RecordBatchReader:
        """What is published here under a name and an index."""
        found = self.native.find(name, index)
        return pa.RecordBatchReader.from_batches(found.schema, iter(found.next, None))

    def end_shuffle(self, shuffle_id: str) -> None:
        """Drops what is stored and published under the id and below it ("id/..."); later chunks for it are refused."""
        with self._lock:
            self.native.end(shuffle_id)
            below = shuffle_id + "/"
            for known in [name for name in self._partitions_of if name == shuffle_id or name.startswith(below)]:
                del self._partitions_of[known], self._owners_of[known], self._schema_of[known], self._slots_of[known]
                del self._tables_of[known]

    def await_disk(self, timeout_s: float) -> None:
        """Lets what is being written to disk make room before more rows come; at once in a slot, which never waits."""
        if not self.native.ledger.above_high_water or (self._slot_pool and self._slot_pool.on_slot_thread()):
            return
        self.native.wait_spilled(timeout_s)

    def num_partitions(self, shuffle_id: str) -> int:
        """How many partitions an open shuffle has; UsageError where it is not open here."""
        if shuffle_id not in self._partitions_of:
            raise UsageError(f"Shuffle {shuffle_id} is not open on agent {self.address}. Call start_shuffle first.")
        return self._partitions_of[shuffle_id]

    def owners(self, shuffle_id: str) -> list[str]:
        """The agents of an open shuffle: partition p belongs to owners[p % len(owners)]."""
        self.num_partitions(shuffle_id)
        return self._owners_of[shuffle_id]

    def owner_table(self, shuffle_id: str) -> tuple[int, list[int]]:
        """The epoch of an open shuffle, and the owner of each partition as an index into its agents."""
        count = self.num_partitions(shuffle_id)
        epoch, owner_of = self._tables_of[shuffle_id]
        return epoch, list(owner_of[:count]) or [p % len(self._owners_of[shuffle_id]) for p in range(count)]

    def owns(self, shuffle_id: str, partition: int) -> bool:
        """Whether this agent owns the partition of an open shuffle, by the table that it knows."""
        return self.owners(shuffle_id)[self.owner_table(shuffle_id)[1][partition]] == self.address

    def schema(self, shuffle_id: str) -> pa.Schema | None:
        """The schema that an open shuffle was opened with, if any."""
        self.num_partitions(shuffle_id)
        return self._schema_of[shuffle_id]

    def slots(self, shuffle_id: str) -> SlotAccount | None:
        """The slots that work for an open shuffle, on its job's account; None where threads that call do the work."""
        self.num_partitions(shuffle_id)
        return self._slots_of[shuffle_id]

    def close(self) -> None:
        """Ends every wait, closes the port and frees what is held; may be called again."""
        self.native.stop()

    def _check_same(self, shuffle_id: str, agents: Sequence[str], schema: pa.Schema | None) -> None:
        if shuffle_id not in self._owners_of:
            return
        known = self._schema_of[shuffle_id]
        if self._owners_of[shuffle_id] == list(agents) and (known == schema if known and schema else known is schema):
            return
        raise UsageError(
            f"Shuffle {shuffle_id} is open already with other agents or another schema: its agents are "
            f"{', '.join(self._owners_of[shuffle_id])}. End it first, or use another id."
        )

    def _check_ours(self, shuffle_id: str, partition_id: int) -> None:
        check_partition(shuffle_id, partition_id, self.num_partitions(shuffle_id))
        # Rows sent with target_agent may be on their way: a partition that is not ours gets a moment to show up.
        if self.native.holds(shuffle_id, partition_id) or (
            self.native.wait_senders(shuffle_id, _STRAY_WAIT_S) and self.native.holds(shuffle_id, partition_id)
        ):
            return
        raise self._not_ours(shuffle_id, partition_id)

    def _not_ours(self, shuffle_id: str, partition_id: int) -> UsageError:
        owner = self.owners(shuffle_id)[self.owner_table(shuffle_id)[1][partition_id]]
        return UsageError(
            f"Partition {partition_id} of shuffle {shuffle_id} belongs to agent {owner}, not to {self.address}. "
            f"Receive it there.",
            shuffle=shuffle_id,
            partition=partition_id,
            agent=owner,
        )

    def __enter__(self) -> ShuffleServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_partition(shuffle_id: str, partition_id: int, num_partitions: int) -> None:
    """UsageError unless the partition exists."""
    if not 0 <= partition_id < num_partitions:
        raise UsageError(
            f"Shuffle {shuffle_id} has partitions 0 to {num_partitions - 1}; there is no partition {partition_id}."
        )


def _check_shuffle(shuffle_id: str, num_partitions: int, agents: Sequence[str], *, unique: bool) -> None:
    """`unique`: no two agents may have one address, as they may in a job: then the earlier one is gone."""
    if not isinstance(shuffle_id, str) or not shuffle_id or len(shuffle_id.encode()) > 512:
        raise UsageError("A shuffle_id is a text of 1 to 512 bytes.")
    if not 1 <= num_partitions <= 1 << 20:
        raise UsageError(f"num_partitions is {num_partitions}; it must be from 1 to {1 << 20}.")
    if isinstance(agents, str) or not agents:
        raise UsageError('agents is the list of the Flight addresses that take part, such as ["127.0.0.1:8816"].')
    if unique and len(set(agents)) != len(agents):
        raise UsageError(f"agents names an address twice: {', '.join(agents)}.")
