"""What a task reads: rows of files, a piece of an uploaded table, or the same partition of its input shuffles.

Every row is counted as it is released. Whoever stops reading before the end has read partially, and the input says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sabot.agent.files.file_readers import FilePiece, file_pieces
from sabot.agent.files.footers import Footers
from sabot.agent.tasks.large_input import Attempts, LargeInput, Sent
from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.dataflow.columns import plain_schema
from sabot.dataflow.enough_rows import NO_ATTEMPT
from sabot.dataflow.execution import from_wire, wire_schema
from sabot.dataflow.stage import (
    BroadcastShuffle,
    FilesSplit,
    HashShuffle,
    JobPlan,
    Join,
    PartitionSplit,
    ScanInput,
    ShuffleInput,
    Split,
    Stage,
    TableInput,
    TableSplit,
    shuffle_id,
)
from sabot.errors import InternalError, PeerLost, UsageError
from sabot.shuffle.receipts import PartitionRead
from sabot.shuffle.share_reader import read_share
from sabot.shuffle.stored_partition import StoredPartition
from sabot.shuffle.transport import ShuffleTransport
from sabot.slots import MorselSource
from sabot.wire.agent_pb2 import PartitionSum, ReleasedSum, RunTaskReply

_PUBLISHED_BYTES = 32 << 20  # what is worked on at a time of rows that lie here, perhaps on disk


@dataclass(frozen=True, slots=True, kw_only=True)
class InputAttempts:
    """The one visible attempt of each task of an input stage, or of `tasks`, who alone sent to the partition. Of one
    that was broadcast, `partition` is to be read.
    """

    stage_id: int
    attempts: tuple[int, ...]
    partition: int = 0
    tasks: tuple[int, ...] = ()


class TaskInput:
    """Reads one split once, as a stream of tables, or for a shuffle as whole tables, one for each input stage."""

    def __init__(
        self,
        plan: JobPlan,
        stage: Stage,
        split: Split,
        inputs: Sequence[InputAttempts],
        *,
        agent_id: str,
        timeout_s: float,
        footers: Footers,
        read_bytes_max: int,
        epoch: int = 0,
    ) -> None:
        self._plan = plan
        self._stage = stage
        self._split = split
        self._inputs = inputs
        self._agent_id = agent_id
        self._timeout_s = timeout_s
        self._footers = footers
        self._read_bytes_max = read_bytes_max
        self._epoch = epoch
        self._rows = 0
        self._network_rows = 0
        self._spilled_bytes = 0
        self._released: list[ReleasedSum] = []
        self._copied: list[ReleasedSum] = []
        self._ended = False

    @property
    def schema(self) -> pa.Schema:
        """The schema of what `stream` gives, plain."""
        source = self._stage.input
        if isinstance(source, ShuffleInput):
            return plain_schema(self._sender(source.stage_ids[0]).schema)
        return plain_schema(source.schema)

    @property
    def source(self) -> MorselSource:
        """NETWORK where most of what was read came from other agents."""
        return MorselSource.NETWORK if 2 * self._network_rows >= self._rows > 0 else MorselSource.LOCAL

    def stream(self, transport: ShuffleTransport, calls: SlotCalls) -> Iterator[pa.Table]:
        """The rows of a split with one input, as they are read."""
        match self._split:
            case FilesSplit():
                assert isinstance(self._stage.input, ScanInput)
                scan = self._stage.input
                pieces = file_pieces(
                    self._split, scan, agent_id=self._agent_id, footers=self._footers, bytes_max=self._read_bytes_max
                )
                yield from self._rows_of(pieces, calls)
            case TableSplit():
                yield from self._published(transport, calls)
            case PartitionSplit():
                yield from self.tables(transport, calls)
        self._ended = True

    def _rows_of(self, pieces: Iterator[FilePiece], calls: SlotCalls) -> Iterator[pa.Table]:
        """Of each piece the first rows are read while those before them are worked on. No rows are held here then."""
        for piece in calls.call_ahead(self._when_there_is_memory(pieces, calls)):
            try:
                while True:
                    self._rows += piece.num_rows
                    yield piece.take()
                    if piece.ended:
                        break
                    calls.wait_for_memory(self._timeout_s)
                    calls.call(piece.read)
            finally:
                piece.close()

    def _when_there_is_memory(self, pieces: Iterator[FilePiece], calls: SlotCalls) -> Iterator[Callable[[], FilePiece]]:
        for piece in pieces:
            calls.wait_for_memory(self._timeout_s)
            yield piece.read

    def tables(self, transport: ShuffleTransport, calls: SlotCalls) -> list[pa.Table]:
        """The partition, audited, as each input stage sent it: one table, or for a join two."""
        if not isinstance(self._split, PartitionSplit):
            raise InternalError(f"stage {self._stage.stage_id} reads no partition; please report it")
        found = []
        for side, given in enumerate(self._inputs):
            calls.check_cancelled()
            read = self._read(self._split, side, given, transport)
            self._rows += read.rows
            self._network_rows += read.network_rows
            self._released.append(_released(given.stage_id, self._split.partition, [read]))
            found.append(_decoded(read.table, self._sender(given.stage_id).schema, calls))
        self._ended = True
        return found

    def large(self, transport: ShuffleTransport, calls: SlotCalls, bytes_max: int) -> list[LargeInput] | None:
        """The inputs to be read piece by piece, where together they have more than `bytes_max` (0: never)."""
        split = self._split
        if not isinstance(split, PartitionSplit) or split.share is not None or not bytes_max:
            return None
        sent = [self._sent(split, given, transport) for given in self._inputs]
        if sum(one.num_bytes for one in sent) <= bytes_max:
            return None
        steps = self._stage.steps
        sides = [(one,) for one in sent] if steps and isinstance(steps[0], Join) else [tuple(sent)]
        count = transport.server.num_partitions(shuffle_id(self._plan.job_id, self._inputs[0].stage_id))
        return [
            LargeInput(
                sent=side, calls=calls, timeout_s=self._timeout_s, partition=split.partition, num_partitions=count
            )
            for side in sides
        ]

    def _sent(self, split: PartitionSplit, given: InputAttempts, transport: ShuffleTransport) -> Sent:
        name, server = shuffle_id(self._plan.job_id, given.stage_id), transport.server
        counted: list[int] = []

        def opened(attempts: Attempts) -> StoredPartition:
            # What is read is kept until it has been: first all goes to disk that memory is asked for.
            server.native.wait_spilled(self._timeout_s)
            return server.open_partition(name, split.partition, attempts=attempts)

        def count(readings: Sequence[StoredPartition]) -> None:
            if counted:
                return
            counted.append(1)
            self._rows += sum(one.rows for one in readings)
            self._network_rows += sum(one.network_rows for one in readings)
            self._spilled_bytes += server.native.spilled_bytes_of(name, split.partition)
            self._released.append(_released(given.stage_id, split.partition, readings))
            self._ended = len(self._released) == len(self._inputs)

        return Sent(
            schema=plain_schema(self._sender(given.stage_id).schema),
            attempts=_who_sent(given),
            num_bytes=transport.stored_bytes_of(name, split.partition),
            open=opened,
            count=count,
        )

    def copy(self, given: InputAttempts, transport: ShuffleTransport, calls: SlotCalls) -> pa.Table:
        """All rows of a stage that was broadcast, audited: this agent's copy, or another's where it has none."""
        calls.check_cancelled()
        sender = self._sender(given.stage_id)
        assert isinstance(sender.output, BroadcastShuffle)
        name, timeout_s = shuffle_id(self._plan.job_id, given.stage_id), self._timeout_s
        if transport.server.owns(name, given.partition):  # in whatever epoch
            attempts = list(enumerate(given.attempts))
            read = transport.read_partition(name, given.partition, attempts=attempts, timeout_s=timeout_s)
        else:
            read = read_share(
                transport,
                name,
                given.partition,
                attempts=given.attempts,
                share=(0, 1),
                keys=sender.output.keys,
                epoch=self._epoch,
                timeout_s=timeout_s,
            )
        self._copied.append(_released(given.stage_id, given.partition, [read]))
        return _decoded(read.table, sender.schema, calls)

    def _read(
        self, split: PartitionSplit, side: int, given: InputAttempts, transport: ShuffleTransport
    ) -> PartitionRead:
        name = shuffle_id(self._plan.job_id, given.stage_id)
        if split.share is None:
            attempts = _who_sent(given)
            self._spilled_bytes += transport.server.native.spilled_bytes_of(name, split.partition)
            return transport.read_partition(name, split.partition, attempts=attempts, timeout_s=self._timeout_s)
        output = self._sender(given.stage_id).output
        return read_share(
            transport,
            name,
            split.partition,
            attempts=given.attempts,
            share=split.share.of_side(side),
            keys=output.keys if isinstance(output, HashShuffle) else (),
            epoch=self._epoch,
            timeout_s=self._timeout_s,
        )

    def account(self, reply: RunTaskReply) -> None:
        """Say what was read."""
        reply.rows_in = self._rows
        reply.spilled_bytes = self._spilled_bytes
        reply.released.extend(self._released)
        reply.copied.extend(self._copied)
        reply.partial = not self._ended

    def _published(self, transport: ShuffleTransport, calls: SlotCalls) -> Iterator[pa.Table]:
        """An uploaded table's piece, or a partition that an earlier job has left here, some of its rows at a time."""
        assert isinstance(self._stage.input, TableInput) and isinstance(self._split, TableSplit)
        piece = self._split.piece
        name = piece.result or f"{self._plan.job_id}/upload/{self._split.table_id}"
        try:
            reader = transport.fetch(transport.address, name, piece.index, timeout_s=self._timeout_s)
        except UsageError as error:
            if piece.result is None:
                raise
            raise UsageError(
                f"agent {self._agent_id} no longer has {piece}: it was closed, no job used it for jobs.result_lease_s, "
                "or the agent was started anew; persist the dataset again",
                agent=self._agent_id,
            ) from error
        for table in self._some_at_a_time(reader, calls):
            self._rows += table.num_rows
            yield _decoded(table, self._stage.input.schema, calls)
        if self._rows != piece.rows:
            raise PeerLost(
                f"agent {self._agent_id} has {self._rows:,} of the {piece.rows:,} rows of {piece}; run the job again",
                agent=self._agent_id,
                address=transport.address,
            )

    def _some_at_a_time(self, reader: pa.RecordBatchReader, calls: SlotCalls) -> Iterator[pa.Table]:
        batches: list[pa.RecordBatch] = []
        size = 0
        for batch in reader:
            batches.append(batch)
            size += batch.nbytes
            if size >= _PUBLISHED_BYTES:
                yield pa.Table.from_batches(batches, reader.schema)
                batches, size = [], 0
                calls.wait_for_memory(self._timeout_s)
        if batches:
            yield pa.Table.from_batches(batches, reader.schema)

    def _sender(self, stage_id: int) -> Stage:
        return next(stage for stage in self._plan.stages if stage.stage_id == stage_id)


def _who_sent(given: InputAttempts) -> list[tuple[int, int]]:
    """The (task, attempt) pairs whose rows count."""
    tasks = given.tasks or range(len(given.attempts))
    named = zip(tasks, given.attempts, strict=True)
    return [(task, attempt) for task, attempt in named if attempt != NO_ATTEMPT]


def _released(stage_id: int, partition: int, readings: Sequence[PartitionRead | StoredPartition]) -> ReleasedSum:
    part = PartitionSum(
        partition=partition,
        rows=sum(one.rows for one in readings),
        content_sum=sum(one.content_sum for one in readings) % (1 << 64),
        num_bytes=sum(one.num_bytes for one in readings),
    )
    return ReleasedSum(stage_id=stage_id, sum=part)


def _decoded(table: pa.Table, schema: pa.Schema, calls: SlotCalls) -> pa.Table:
    """`table` from wire form; encoding dictionaries is work for a slot."""
    if wire_schema(schema).types == schema.types:
        return pa.Table.from_arrays(table.columns, schema=plain_schema(schema)) if table.num_columns else table
    return calls.call(lambda: from_wire(table, schema))
