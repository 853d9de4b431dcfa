"""What a stranger sends, or a peer that is set up otherwise: refused by type, never a crash or a wrong answer."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest
from pyarrow import flight

from sabot.errors import LimitReached, PeerRefused, ShuffleIntegrityError, UsageError
from sabot.native import _native
from sabot.shuffle import ShuffleClient, ShuffleServer, ShuffleTransport
from sabot.shuffle.partitioning import RoundRobinPartitioning
from sabot.slots import TaskSlotManager
from tests.shuffle import wire

MakeServer = Callable[..., ShuffleServer]
MakeTransport = Callable[..., ShuffleTransport]
ROWS = pa.record_batch({"number": [1, 2, 3]})


def put_whole(server: ShuffleServer, **changes: object) -> list[int]:
    """Sends one chunk and its manifest; the codes of their acknowledgements."""
    header = wire.chunk("s", ROWS, **changes)  # type: ignore[arg-type]
    return [
        ack.code for ack in wire.put(server.address, [(header, ROWS), (wire.manifest([header]), None)], ROWS.schema)
    ]


def test_row_counts_that_wrap_round_to_the_right_one_are_refused(make_server: MakeServer) -> None:
    server = make_server()
    server.start_shuffle("s", 3, [server.address], senders=0)
    most = 2**63 - 1
    header = wire.chunk("s", ROWS, extents=((0, most, 0), (1, most, 0), (2, 5, 0)))
    (ack,) = wire.put(server.address, [(header, ROWS)], ROWS.schema)
    assert (ack.code, "rows where its header says" in ack.message) == (wire.INTEGRITY, True)


def test_chunk_that_names_a_partition_twice_is_refused(make_server: MakeServer) -> None:
    server = make_server()
    server.start_shuffle("s", 1, [server.address], senders=0)
    (ack,) = wire.put(server.address, [(wire.chunk("s", ROWS, extents=((0, 1, 0), (0, 2, 0))), ROWS)], ROWS.schema)
    assert (ack.code, "partition twice" in ack.message) == (wire.INTEGRITY, True)


def broken_batches() -> Iterator[pa.RecordBatch]:
    offsets = struct.pack("<4i", 0, 1 << 30, (1 << 30) + 5, 3)
    text = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(offsets), pa.py_buffer(b"abc")])
    yield pa.RecordBatch.from_arrays([text], ["offsets"])
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 7, 1 << 20], pa.int32()), pa.array(["a"]), safe=False)
    yield pa.RecordBatch.from_arrays([codes], ["codes"])


@pytest.mark.parametrize("batch", list(broken_batches()), ids=lambda batch: batch.schema.names[0])
def test_invalid_rows_under_a_right_checksum_are_refused(make_server: MakeServer, batch: pa.RecordBatch) -> None:
    server = make_server()
    server.start_shuffle("s", 1, [server.address], senders=0, schema=batch.schema)
    header = wire.Header(
        shuffle_id="s", checksum=_native.checksum_batch(batch), extents=((0, 3, 0),), bytes_held=1 << 10
    )
    (ack,) = wire.put(server.address, [(header, batch)], batch.schema)
    assert ack.code == wire.INTEGRITY


def test_sender_beyond_the_agents_does_not_stand_for_one_of_them(make_server: MakeServer) -> None:
    server = make_server()
    server.start_shuffle("s", 1, [server.address, "127.0.0.1:1"])
    assert put_whole(server, task=0) == [0, 0]
    assert put_whole(server, task=5) == [wire.PEER_REFUSED, wire.PEER_REFUSED]
    with pytest.raises(LimitReached, match="not every sender"):
        server.receive_partition("s", 0, timeout_s=0.05)


def test_second_attempt_of_a_sender_is_not_read_beside_the_first(make_server: MakeServer) -> None:
    server = make_server()
    server.start_shuffle("s", 1, [server.address])
    assert put_whole(server) == [0, 0]
    assert put_whole(server, attempt=1) == [wire.PEER_REFUSED, wire.PEER_REFUSED]
    assert server.receive_partition("s", 0).read_all().num_rows == 3


def test_plain_rows_cannot_spoil_the_shuffle_of_a_job(make_server: MakeServer) -> None:
    server = make_server()
    server.start_shuffle("s", 1, [server.address], senders=0, schema=ROWS.schema)
    with pytest.raises(pa.ArrowException, match="from its tasks only"):
        wire.put_plain(server.address, ("sabot", "shuffle", "s", "0"), [ROWS], announced=3)
    content_sum = _native.content_sum(ROWS, ["number"], 0)
    header = wire.chunk("s", ROWS, by_hash=True, keys=(0,), extents=((0, 3, content_sum),))
    last = wire.manifest([header], by_hash=True, keys=(0,))
    assert [ack.code for ack in wire.put(server.address, [(header, ROWS), (last, None)], ROWS.schema)] == [0, 0]


def test_refused_chunk_does_not_settle_the_schema(make_server: MakeServer) -> None:
    server = make_server()
    server.start_shuffle("s", 1, [server.address])
    other = pa.record_batch({"else": ["a"]})
    (ack,) = wire.put(server.address, [(wire.chunk("s", other, partition=9), other)], other.schema)
    assert ack.code == wire.PEER_REFUSED
    assert put_whole(server) == [0, 0]


def test_ticket_of_a_partition_that_lies_elsewhere_is_refused_not_answered_empty(make_server: MakeServer) -> None:
    server = make_server()
    server.start_shuffle("s", 2, [server.address, "127.0.0.1:1"], senders=1)
    assert put_whole(server) == [0, 0]
    assert wire.get(server.address, _native.ticket_of("s", 0, shuffle=True))[0].num_rows == 3
    for partition in (1, 2):
        with pytest.raises(pa.ArrowException, match="not held by this agent"):
            wire.get(server.address, _native.ticket_of("s", partition, shuffle=True))


@pytest.mark.parametrize("name", ["n" * 513, "n" * 100_000, ""])
def test_name_without_measure_is_a_usage_error(make_server: MakeServer, name: str) -> None:
    server = make_server()
    with pytest.raises(UsageError, match="1 to 512 bytes"):
        server.register_partition(name, 0, ROWS)
    with pytest.raises(pa.ArrowException, match=r"\[sabot:1\]"):
        wire.put_plain(server.address, ("sabot", "publish", name, "0"), [ROWS], announced=3)
    with ShuffleClient() as client, pytest.raises(UsageError):
        client.fetch_partition(server.address, name, 0)


@pytest.mark.parametrize("letter", ["c", "ü", "中"])
def test_long_message_keeps_its_type_and_both_ends_over_the_wire(make_server: MakeServer, letter: str) -> None:
    server = make_server()
    server.start_shuffle(
        "s", 1, [server.address], schema=pa.schema([(letter * 20 + str(i), pa.int8()) for i in range(900)])
    )
    with pytest.raises(pa.ArrowException, match=r"\[sabot:1\]Rows of another schema(.|\n)*Cast them to one schema."):
        wire.put_plain(server.address, ("sabot", "shuffle", "s", "0"), [ROWS], announced=3)
    (ack,) = wire.put(server.address, [(wire.chunk("s", ROWS), ROWS)], ROWS.schema)
    assert (ack.code, ack.message.endswith("Cast them to one schema.")) == (wire.USAGE, True)


class WronglyAcknowledging(flight.FlightServerBase):
    """Answers every chunk with an acknowledgement of something else."""

    def __init__(self, kind: int, code: int, task: int) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.credit = wire.encode_ack(wire.Header(shuffle_id="", kind=wire.CREDIT))
        self.ack = wire.ACK.pack(b"SBTA", wire.VERSION, kind, 0, code, task, 0, 0, 0, 0)

    def do_put(
        self,
        context: flight.ServerCallContext,
        descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        writer.write(self.credit)
        for _ in reader:
            writer.write(self.ack)


@pytest.mark.parametrize(
    ("kind", "code", "task"),
    [(wire.MANIFEST, 0, 0), (wire.CHUNK, 0, 77), (wire.CHUNK, 99, 0), (wire.CHUNK, -1, 0), (9, 0, 0)],
)
def test_acknowledgement_of_something_else_confirms_nothing(
    make_transport: MakeTransport, kind: int, code: int, task: int
) -> None:
    sender = make_transport()
    with WronglyAcknowledging(kind, code, task) as other:
        sender.start_shuffle("s", 2, [sender.address, f"127.0.0.1:{other.port}"])
        sender.send_partition("s", 1, ROWS)
        with pytest.raises(PeerRefused, match="acknowledge"):
            sender.finish_shuffle("s", timeout_s=10)
        sender.drop("s")


def test_two_writers_of_one_attempt_are_told_apart(make_transport: MakeTransport) -> None:
    transport = make_transport()
    transport.open_shuffle("s", num_partitions=1, owners=[transport.address], schema=ROWS.schema)
    first, second = (
        transport.attempt_writer("s", task=0, attempt=0, partitioning=RoundRobinPartitioning()) for _ in range(2)
    )
    first.write([ROWS])
    with pytest.raises(ShuffleIntegrityError, match="came twice with different rows"):
        second.write([ROWS.slice(1)])
    assert first.finish(timeout_s=5).rows == 3
    with pytest.raises(ShuffleIntegrityError):
        second.finish(timeout_s=5)


def test_idle_writers_do_not_hold_up_the_end(make_server: MakeServer, slots: TaskSlotManager) -> None:
    server = make_server()
    descriptor = flight.FlightDescriptor.for_path("sabot", "chunks", "idle")
    with flight.connect(f"grpc://{server.address}") as client:
        streams = [client.do_put(descriptor, ROWS.schema) for _ in range(90)]
        assert ShuffleClient().ping(server.address).incarnation == server.incarnation
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 5.0
        for writer, _ in streams:
            with pytest.raises(pa.ArrowException):
                writer.close()
