"""Where a task's rows go: into its stage's shuffle, into the job's result, or into a file of a dataset being written.

An output takes batches in order and is then finished, which completes the task's reply, or aborted. Rows leave in wire
form: dictionaries decoded, every column nullable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from sabot.agent.owner_table import coordinator_of
from sabot.agent.slot_calls import SlotCalls
from sabot.dataflow.columns import plain_schema
from sabot.dataflow.execution import to_wire, wire_schema
from sabot.dataflow.stage import WriteOutput
from sabot.errors import UsageError
from sabot.shuffle.attempts import AttemptWriter
from sabot.shuffle.transport import ShuffleTransport
from sabot.wire.agent_pb2 import PartitionSum, ResultPartition, RunTaskReply, WrittenFile

_WRITTEN_BYTES = 64 << 20  # what is gathered for one row group of a written file


class TaskOutput(Protocol):
    """Takes a task's rows. Exactly one of finish and abort ends it."""

    def write(self, batches: Sequence[pa.RecordBatch]) -> None: ...
    def finish(self, reply: RunTaskReply) -> None: ...
    def abort(self) -> None: ...


class ShuffleOutput:
    """Gives rows to an attempt writer, at most `scatter_bytes_max` at a time."""

    def __init__(
        self,
        writer: AttemptWriter,
        calls: SlotCalls,
        schema: pa.Schema,
        *,
        scatter_bytes_max: int,
        timeout_s: float,
    ) -> None:
        self._writer = writer
        self._calls = calls
        self._form = WireForm(calls, schema)
        self._gather = Gather(scatter_bytes_max)
        self._timeout_s = timeout_s

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        for piece in self._gather.add(self._form.convert(batches)):
            self._writer.write(piece, timeout_s=self._timeout_s)

    def finish(self, reply: RunTaskReply) -> None:
        """Sends what is left and waits until every owner has confirmed its manifest."""
        rest = self._gather.rest()
        if rest:
            self._writer.write(rest, timeout_s=self._timeout_s)
        # An owner that hangs must not hold an attempt that nobody wants any more.
        summary = self._writer.finish(timeout_s=self._timeout_s, check=self._calls.check_cancelled)
        for part in summary.sums:
            reply.sent.append(PartitionSum(partition=part.partition, rows=part.rows, content_sum=part.content_sum))
        reply.wire_bytes = summary.wire_bytes
        reply.local_bytes = summary.local_bytes
        reply.placement_digest = summary.placement_digest

    def abort(self) -> None:
        self._writer.abort()


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
    ) -> None:
        self._transport = transport
        self._calls = calls
        self._form = WireForm(calls, schema)
        self._name = name
        self._partition = partition
        self._agent_id = agent_id
        self._batches: list[pa.RecordBatch] = []

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        self._batches.extend(self._form.convert(batches))

    def finish(self, reply: RunTaskReply) -> None:
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


class FileWriter:
    """Writes a task's rows to one file in the job's hidden folder, which the coordinator's agent has made."""

    def __init__(
        self,
        output: WriteOutput,
        calls: SlotCalls,
        schema: pa.Schema,
        *,
        job_id: str,
        task: int,
        attempt: int,
        epoch: int = 0,
    ) -> None:
        self._calls = calls
        self._format = output.format
        self._schema = plain_schema(schema) if output.format == "parquet" else wire_schema(schema)
        self._form = WireForm(calls, schema) if output.format != "parquet" else None
        hidden = hidden_folder(output.folder, job_id, epoch)
        # A folder for each attempt: one that was given up may write on, and must not write into another's file.
        self._name = f"attempt-{attempt}/part-{task:05}.{_ENDINGS[output.format]}"
        self._path = hidden / self._name
        self._gather = Gather(_WRITTEN_BYTES)
        if not hidden.is_dir():
            raise UsageError(
                f"this agent does not see {hidden}, which the coordinator's agent has made; "
                "write to a folder that every agent finds under the same path",
                path=output.folder,
            )
        self._path.parent.mkdir(exist_ok=True)
        self._sink = pa.OSFile(str(self._path), "wb")
        try:
            self._writer = _open_writer(output.format, self._sink, self._schema)
        except pa.ArrowException as error:
            self._discard()
            raise self._named(error) from error

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        for piece in self._gather.add(self._form.convert(batches) if self._form else batches):
            self._write(piece)

    def finish(self, reply: RunTaskReply) -> None:
        rest = self._gather.rest()
        if rest:
            self._write(rest)
        self._calls.call_to_end(self._writer.close)
        self._sink.close()
        reply.written.append(WrittenFile(path=self._name, size_bytes=self._path.stat().st_size))

    def abort(self) -> None:
        with suppress(Exception):  # what it would write is thrown away
            self._writer.close()
        self._discard()

    def _discard(self) -> None:
        self._sink.close()
        self._path.unlink(missing_ok=True)

    def _write(self, batches: Sequence[pa.RecordBatch]) -> None:
        table = pa.Table.from_batches([conform(batch, self._schema) for batch in batches], self._schema)
        try:
            self._calls.call_to_end(lambda: self._writer.write_table(table))
        except pa.ArrowMemoryError:  # no fault of the rows
            raise
        except pa.ArrowException as error:
            raise self._named(error) from error

    def _named(self, error: pa.ArrowException) -> UsageError:
        return UsageError(f"rows cannot be written as {self._format}: {error}; cast or drop that column")


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
            for slice_ in self._slices(batch):
                size = slice_.nbytes
                if self._batches and self._bytes + size > self._bytes_max:
                    yield self.rest()
                self._batches.append(slice_)
                self._bytes += size

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


def hidden_folder(folder: str, job_id: str, epoch: int = 0) -> Path:
    """Where a job's files lie until it has succeeded: inside the target, so that moving them stays on one disk. Each
    coordinator of the job has a name of its own for it.
    """
    number = coordinator_of(epoch)
    return Path(folder) / (f".sabot-{job_id}-{number}" if number else f".sabot-{job_id}")


_ENDINGS = {"parquet": "parquet", "csv": "csv", "ipc": "arrow"}


def _open_writer(
    format: str, sink: pa.NativeFile, schema: pa.Schema
) -> pq.ParquetWriter | pa.csv.CSVWriter | pa.ipc.RecordBatchFileWriter:
    if format == "parquet":
        return pq.ParquetWriter(sink, schema)
    if format == "csv":
        return pa.csv.CSVWriter(sink, schema)
    return pa.ipc.new_file(sink, schema)
