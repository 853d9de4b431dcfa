"""A plain pyarrow.flight server that speaks the part of docs/protocol.md which clients need, and can misbehave."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

from sabot.native import _native
from sabot.wire.versions import PROTOCOL

MARK = struct.Struct("<4sBxxxQQQ")


class PlainServer(fl.FlightServerBase):
    """Keeps uploads, serves `parts` by ticket; `tamper` changes or withholds each (batch, metadata) that leaves."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"
        self.uploads: dict[tuple[str, ...], pa.Table] = {}
        self.batch_sizes: list[int] = []
        self.acknowledge: Any = lambda rows, content_sum: MARK.pack(b"SBTR", 1, 0, rows, content_sum)
        self.refusal = ""
        self.incarnation = 7
        self.pinged: Any = lambda: None
        self.parts: dict[str, tuple[pa.Schema, list[pa.RecordBatch]]] = {}
        self.tamper: Any = lambda batch, metadata: (batch, metadata)

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        if self.refusal:
            raise fl.FlightServerError(self.refusal)
        batches = []
        rows = None
        for chunk in reader:
            if chunk.data is not None:
                batches.append(chunk.data)
                self.batch_sizes.append(chunk.data.nbytes)
            if chunk.app_metadata is not None:
                magic, rows = struct.unpack("<4sQ", chunk.app_metadata.to_pybytes())
                assert magic == b"SBTE"
        table = pa.Table.from_batches(batches, schema=reader.schema)
        if rows != table.num_rows:
            raise fl.FlightServerError("[sabot:2]the stream ended without its last message[/sabot]")
        self.uploads[tuple(part.decode() for part in descriptor.path)] = table
        answer = self.acknowledge(rows, sum(map(sum_of, batches)) % 2**64)
        if answer is not None:
            writer.write(pa.py_buffer(answer))

    def do_action(self, context: Any, action: Any) -> list[bytes]:
        assert action.type == "ping"
        self.pinged()
        return [struct.pack("<4sHQ", b"SBTP", PROTOCOL, self.incarnation)]

    def do_get(self, context: Any, ticket: Any) -> fl.GeneratorStream:
        if ticket.ticket.decode() not in self.parts:
            raise fl.FlightServerError("[sabot:1]nothing is published as gone (name=gone, index=3)[/sabot]")
        schema, batches = self.parts[ticket.ticket.decode()]
        return fl.GeneratorStream(schema, self._messages(batches))

    def _messages(self, batches: list[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, bytes]]:
        rows = content_sum = 0
        for sequence, batch in enumerate(batches):
            rows += batch.num_rows
            content_sum = (content_sum + sum_of(batch)) % 2**64
            last = sequence == len(batches) - 1
            message = self.tamper(batch, MARK.pack(b"SBTR", last, sequence, rows, content_sum))
            if message is not None:
                yield message


def sum_of(batch: pa.RecordBatch) -> int:
    return int(_native.content_sum(batch, [], 0)) if batch.num_columns else 0
