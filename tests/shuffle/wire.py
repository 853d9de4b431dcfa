"""A second implementation of docs/protocol.md, on plain `pyarrow.flight`: what a stranger would write."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import flight

from sabot.native import _native

CHUNK, MANIFEST, CREDIT = 1, 2, 3
VERSION = 3
USAGE, PEER_LOST, PEER_REFUSED, INTEGRITY, LIMIT = 1, 2, 3, 4, 5
ACK = struct.Struct("<4sHBBiIIIQH")
REQUEST = struct.Struct("<4sHQ")
FIXED = struct.Struct("<4sHBBQQIIIIIHHQ")


@dataclass(frozen=True, kw_only=True)
class Header:
    shuffle_id: str
    kind: int = CHUNK
    incarnation: int = 7
    checksum: int = 0
    epoch: int = 0
    task: int = 0
    attempt: int = 0
    sequence: int = 0
    extents: tuple[tuple[int, int, int], ...] = ()
    keys: tuple[int, ...] = ()
    by_hash: bool = False
    by_column: bool = False
    bytes_held: int = 0

    def encode(self) -> bytes:
        name = self.shuffle_id.encode()
        flags = 1 | self.by_hash << 1 | self.by_column << 2
        fixed = FIXED.pack(
            b"SBTC", VERSION, self.kind, flags, self.incarnation, self.checksum, self.epoch, self.task, self.attempt,
            self.sequence, len(self.extents), len(self.keys), len(name), self.bytes_held,
        )  # fmt: skip
        extents = b"".join(struct.pack("<IQQ", *extent) for extent in self.extents)
        return fixed + extents + struct.pack(f"<{len(self.keys)}H", *self.keys) + name


def decode_header(metadata: bytes) -> Header:
    magic, version, kind, flags, incarnation, checksum, epoch, task, attempt, sequence, extents, keys, name, held = (
        FIXED.unpack_from(metadata)
    )
    assert (magic, version) == (b"SBTC", VERSION)
    start = FIXED.size
    pieces = tuple(struct.unpack_from("<IQQ", metadata, start + 20 * i) for i in range(extents))
    start += 20 * extents
    return Header(
        shuffle_id=metadata[start + 2 * keys : start + 2 * keys + name].decode(),
        kind=kind, by_hash=bool(flags & 2), by_column=bool(flags & 4),
        incarnation=incarnation, checksum=checksum, epoch=epoch, task=task,
        attempt=attempt, sequence=sequence, extents=pieces, keys=struct.unpack_from(f"<{keys}H", metadata, start),
        bytes_held=held,
    )  # fmt: skip


def encode_ack(header: Header, code: int = 0) -> bytes:
    """The acknowledgement of the message with this header, with credit for whatever comes."""
    place = (header.task, header.attempt, header.sequence)
    return ACK.pack(b"SBTA", VERSION, header.kind, 0, code, *place, 1 << 40, 0)


@dataclass(frozen=True, kw_only=True)
class Ack:
    kind: int
    repeated: bool
    code: int
    task: int
    attempt: int
    sequence: int
    granted: int
    message: str


def decode_ack(metadata: bytes) -> Ack:
    magic, version, kind, repeated, code, task, attempt, sequence, granted, length = ACK.unpack_from(metadata)
    assert (magic, version) == (b"SBTA", VERSION)
    message = metadata[ACK.size : ACK.size + length].decode()
    return Ack(
        kind=kind,
        repeated=bool(repeated),
        code=code,
        task=task,
        attempt=attempt,
        sequence=sequence,
        granted=granted,
        message=message,
    )


def request_credit(total: int) -> bytes:
    """What a sender says that cannot go on with less than `total` granted."""
    return REQUEST.pack(b"SBTW", VERSION, total)


def chunk(shuffle_id: str, batch: pa.RecordBatch, partition: int = 0, **changes: object) -> Header:
    """The right header for `batch` as rows of one partition; `changes` make it wrong."""
    task = int(changes.get("task", 0))  # type: ignore[call-overload]
    right = {
        "checksum": _native.checksum_batch(batch),
        "bytes_held": bytes_held(batch),
        "extents": ((partition, batch.num_rows, _native.content_sum(batch, [], task % max(1, batch.num_columns))),),
    }
    return Header(shuffle_id=shuffle_id, **{**right, **changes})  # type: ignore[arg-type]


def bytes_held(batch: pa.RecordBatch) -> int:
    """At least what a receiver holds of it: its buffers, each rounded up to 64 bytes."""
    size: int = pa.ipc.get_record_batch_size(batch)
    return size + 64 * 3 * len(batch.schema)


def mark(sequence: int, checksum: int) -> int:
    return _native.mix(sequence + 1, checksum)


def manifest(chunks: list[Header], **changes: object) -> Header:
    """The right manifest for `chunks`, all of one attempt."""
    sums: dict[int, tuple[int, int]] = {}
    for header in chunks:
        for partition, rows, content_sum in header.extents:
            had_rows, had_sum = sums.get(partition, (0, 0))
            sums[partition] = (had_rows + rows, (had_sum + content_sum) % 2**64)
    right = {
        "kind": MANIFEST,
        "incarnation": chunks[0].incarnation,
        "task": chunks[0].task,
        "attempt": chunks[0].attempt,
        "sequence": len(chunks),
        "checksum": sum(mark(header.sequence, header.checksum) for header in chunks) % 2**64,
        "extents": tuple((partition, *total) for partition, total in sorted(sums.items())),
    }
    return Header(shuffle_id=chunks[0].shuffle_id, **{**right, **changes})  # type: ignore[arg-type]


def put(address: str, messages: list[tuple[Header | bytes, pa.RecordBatch | None]], schema: pa.Schema) -> list[Ack]:
    """Sends messages one after the other over one stream, and gives the acknowledgement of each."""
    return put_heedless(address, messages, schema)[1:]


def put_heedless(
    address: str, messages: list[tuple[Header | bytes, pa.RecordBatch | None]], schema: pa.Schema
) -> list[Ack]:
    """As `put`, with the credit that the receiver begins with in front; the sender does not care for credit."""
    with flight.connect(f"grpc://{address}") as client:
        options = flight.FlightCallOptions(timeout=20)
        descriptor = flight.FlightDescriptor.for_path("sabot", "chunks", "stranger")
        writer, reader = client.do_put(descriptor, schema, options)
        acks = []
        for header, batch in [(None, None), *messages]:
            metadata = header.encode() if isinstance(header, Header) else header
            if batch is not None:
                writer.write_with_metadata(batch, metadata)
            elif metadata is not None:
                writer.write_metadata(metadata)
            answer = reader.read()
            if answer is None:
                break
            acks.append(decode_ack(answer.to_pybytes()))
        writer.done_writing()
        writer.close()
        return acks


def end_message(rows: int) -> bytes:
    """The last message of a plain writer."""
    return struct.pack("<4sQ", b"SBTE", rows)


def put_plain(address: str, path: tuple[str, ...], batches: list[pa.RecordBatch], *, announced: int | None) -> int:
    """Writes as a plain Flight client does; `announced` None leaves the end message out. Rows stored."""
    with flight.connect(f"grpc://{address}") as client:
        writer, reader = client.do_put(flight.FlightDescriptor.for_path(*path), batches[0].schema)
        for batch in batches:
            writer.write_batch(batch)
        if announced is not None:
            writer.write_metadata(end_message(announced))
        writer.done_writing()
        answer = reader.read()
        writer.close()
        assert answer is not None
        magic, last, _, rows, _ = struct.unpack("<4sB3xQQQ", answer.to_pybytes())
        assert (magic, last) == (b"SBTR", 1)
        return int(rows)


def get(address: str, ticket: str) -> tuple[pa.Table, list[tuple[int, int, int]]]:
    """Reads as a plain Flight client does: the rows, and (last, sequence, rows so far) of each batch."""
    with flight.connect(f"grpc://{address}") as client:
        reader = client.do_get(flight.Ticket(ticket.encode()))
        batches, marks = [], []
        for data, metadata in reader:
            batches.append(data)
            magic, last, sequence, rows, _ = struct.unpack("<4sB3xQQQ", metadata.to_pybytes())
            assert magic == b"SBTR"
            marks.append((last, sequence, rows))
        return pa.Table.from_batches(batches, schema=reader.schema), marks
