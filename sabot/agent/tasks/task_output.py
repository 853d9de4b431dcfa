"""Where a task's rows go: into its stage's shuffle, into the job's result, or into a file of a dataset being written.

An output takes batches in order and is then finished, which completes the task's reply, or aborted. Rows leave in wire
form: dictionaries decoded, every column nullable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import pyarrow as pa

from sabot.agent.tasks.key_sample import KeySample
from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.dataflow.execution import to_wire, wire_schema
from sabot.shuffle.attempts import AttemptWriter
from sabot.shuffle.transport import ShuffleTransport
from sabot.wire.agent_pb2 import PartitionSum, ResultPartition, RunTaskReply


class TaskOutput(Protocol):
    """Takes a task's rows. Exactly one of finish and abort ends it."""

    def write(self, batches: Sequence[pa.RecordBatch]) -> None: ...
    def finish(self, reply: RunTaskReply) -> None: ...
    def abort(self) -> None: ...


class SampleTaker:
    """Takes a sample of the keys of rows that go elsewhere; the work is done in slots."""

    def __init__(self, calls: SlotCalls, schema: pa.Schema, keys: Sequence[str], *, seed: int) -> None:
        self._calls = calls
        self._sample = KeySample(keys, wire_schema(schema), seed=seed)

    def add(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Rows in wire form."""
        self._calls.call(partial(self._sample.add, batches))

    def finish(self, reply: RunTaskReply) -> None:
        reply.key_sample = self._calls.call(self._sample.to_bytes)


class ShuffleOutput:
    """Gives rows to an attempt writer, at most `scatter_bytes_max` at a time, and a `sample` of them to the reply. The
    writer is opened for the first rows.
    """

    def __init__(
        self,
        open_writer: Callable[[], AttemptWriter],
        calls: SlotCalls,
        schema: pa.Schema,
        *,
        scatter_bytes_max: int,
        timeout_s: float,
        sample: SampleTaker | None = None,
    ) -> None:
        self._open_writer = open_writer
        self._writer: AttemptWriter | None = None
        self._sample = sample
        self._calls = calls
        self._form = WireForm(calls, schema)
        self._gather = Gather(scatter_bytes_max)
        self._timeout_s = timeout_s

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        rows = self._form.convert(batches)
        if self._sample is not None and rows:
            self._sample.add(rows)
        for piece in self._gather.add(rows):
            self._opened().write(piece, timeout_s=self._timeout_s)

    def finish(self, reply: RunTaskReply) -> None:
        """Sends what is left and waits until every owner has confirmed its manifest."""
        rest = self._gather.rest()
        if rest:
            self._opened().write(rest, timeout_s=self._timeout_s)
        # An owner that hangs must not hold an attempt that nobody wants any more.
        summary = self._opened().finish(timeout_s=self._timeout_s, check=self._calls.check_cancelled)
        for part in summary.sums:
            reply.sent.append(
                PartitionSum(
                    partition=part.partition,
                    rows=part.rows,
                    content_sum=part.content_sum,
                    num_bytes=part.num_bytes,
                )
            )
        reply.wire_bytes = summary.wire_bytes
        reply.local_bytes = summary.local_bytes
        reply.placement_digest = summary.placement_digest
        if self._sample is not None:
            self._sample.finish(reply)

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()

    def _opened(self) -> AttemptWriter:
        if self._writer is None:
            self._writer = self._open_writer()
        return self._writer


class ResultPublisher:
    """Keeps a task's rows and publishes them as one partition of the job's result."""

    def __init__(
        self,
        transport: ShuffleTransport,
        calls: SlotCalls,
        schema: pa.Schema,
        *,
        name: str,
        partition: int,
        agent_id: str,
        kept_bytes_max: int = 0,
    ) -> None:
        self._transport = transport
        self._calls = calls
        self._form = WireForm(calls, schema)
        self._name = name
        self._partition = partition
        self._agent_id = agent_id
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._bytes_max = kept_bytes_max
        self._has_added = False

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        rows = self._form.convert(batches)
        self._batches.extend(rows)
        if self._bytes_max:
            self._bytes += sum(batch.nbytes for batch in rows)
            if self._bytes > self._bytes_max:
                self._add()

    def _add(self) -> None:
        """Gives the rows so far to the store, which may put them on disk."""
        batches, self._batches, self._bytes = self._batches, [], 0
        self._has_added = True
        server = self._transport.server
        self._calls.call_to_end(partial(server.add_published, self._name, self._partition, batches, self._form.schema))

    def finish(self, reply: RunTaskReply) -> None:
        if self._has_added:
            self._add()
            publish = partial(self._transport.server.finish_published, self._name, self._partition)
        else:
            publish = partial(self._transport.publish, self._name, self._partition, self._batches, self._form.schema)
        published = self._calls.call_to_end(publish)
        self._batches = []
        reply.result.CopyFrom(
            ResultPartition(
                partition=self._partition,
                flight_address=self._transport.address,
                ticket=published.ticket,
                rows=published.rows,
                content_sum=published.content_sum,
                agent_id=self._agent_id,
            )
        )

    def abort(self) -> None:
        self._batches = []
        if self._has_added:
            self._transport.server.native.abandon(self._name, self._partition)


class WireForm:
    """Puts batches of one schema into wire form; where that costs anything, in a slot."""

    def __init__(self, calls: SlotCalls, schema: pa.Schema) -> None:
        self.schema = wire_schema(schema)
        self._calls = calls
        self._free = self.schema.types == schema.types

    def convert(self, batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
        if self._free:
            return [conform(batch, self.schema) for batch in batches]
        return self._calls.call(lambda: [to_wire(batch) for batch in batches])


class Gather:
    """Gathers batches and gives them back in pieces of at most `bytes_max`, a larger batch in slices."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0

    def add(self, batches: Sequence[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
        """The pieces that are now full."""
        for batch in batches:
            size = 0
            for slice_ in self._slices(batch):
                size = slice_.nbytes
                if self._batches and self._bytes + size > self._bytes_max:
                    yield self.rest()
                self._batches.append(slice_)
                self._bytes += size
            if size < batch.nbytes:  # what is left of a large batch would keep all of it
                yield self.rest()

    def pieces(self, stream: Iterator[Sequence[pa.RecordBatch]]) -> Iterator[list[pa.RecordBatch]]:
        """All of the stream's batches in such pieces. While it is read on, only what is gathered is held."""
        for batches in stream:
            yield from self.add(batches)
            del batches
        if self._batches:
            yield self.rest()

    def rest(self) -> list[pa.RecordBatch]:
        """What has been gathered and not given back yet."""
        batches, self._batches, self._bytes = self._batches, [], 0
        return batches

    def _slices(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        count = -(-batch.nbytes // self._bytes_max)
        if count <= 1:
            yield batch
            return
        rows = max(1, -(-batch.num_rows // count))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with exactly `schema`, from which it may differ in nullability and metadata only; zero-copy."""
    if batch.schema.equals(schema, check_metadata=True) or not batch.num_columns:
        return batch
    return pa.RecordBatch.from_arrays(batch.columns, schema=schema)
