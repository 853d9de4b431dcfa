"""Whatever a stranger sends is refused by type, soon, and without memory: over a real server, which stays well.

What is drawn goes over the wire as a plain Flight client sends it; after each the same server takes a right chunk.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import psutil
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import flight

from sabot.errors import PeerError, SabotError
from sabot.native import _native
from sabot.shuffle import ShuffleClient, ShuffleServer, ShuffleTransport
from tests.shuffle import wire

VERSION = struct.pack("<H", wire.VERSION)
MakeServer = Callable[..., ShuffleServer]
ROWS = pa.record_batch({"v": pa.array([1, 2, 3], pa.int64())})
FUZZ = settings(max_examples=60, deadline=5_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = st.sampled_from([0, 1, 2, 255, 2**16 - 1, 2**20, 2**20 + 1, 2**31 - 1, 2**31, 2**32 - 1])
WIDE = st.one_of(NUMBERS, st.sampled_from([2**53, 2**63 - 1, 2**63, 2**64 - 1]))
TYPED = ("[sabot:1]", "[sabot:2]", "[sabot:3]", "[sabot:4]", "[sabot:5]")
REFUSALS = {wire.USAGE, wire.PEER_LOST, wire.PEER_REFUSED, wire.INTEGRITY, wire.LIMIT}
GROWTH_BYTES_MAX = 100 << 20


@pytest.fixture
def server(make_server: MakeServer) -> Iterator[ShuffleServer]:
    """A server with a shuffle, which still works, and is no larger, when all has been sent."""
    server = make_server(open_wait_s=0.01)
    server.start_shuffle("s", 4, [server.address], senders=0)
    before = psutil.Process().memory_info().rss
    yield server
    assert psutil.Process().memory_info().rss - before < GROWTH_BYTES_MAX
    server.start_shuffle("well", 1, [server.address], senders=0)
    header = wire.chunk("well", ROWS)
    acks = wire.put(server.address, [(header, ROWS), (wire.manifest([header]), None)], ROWS.schema)
    assert [ack.code for ack in acks] == [0, 0]
    with ShuffleClient() as client:
        assert client.ping(server.address).incarnation == server.incarnation


def refused(server: ShuffleServer, messages: list[tuple[wire.Header | bytes, pa.RecordBatch | None]]) -> None:
    """Sends them, and holds the server to an answer by type to each, or to a typed end of the stream."""
    try:
        acks = wire.put(server.address, messages, ROWS.schema)
    except pa.ArrowException as error:
        assert any(code in str(error) for code in TYPED), error
    else:
        assert {ack.code for ack in acks} <= REFUSALS, acks


@FUZZ
@given(st.binary(max_size=200), st.sampled_from([b"", b"SBTC", b"SBTC" + VERSION, b"SBTW", b"SBTW" + VERSION]))
def test_metadata_of_any_bytes_is_refused(server: ShuffleServer, tail: bytes, head: bytes) -> None:
    if head != b"SBTW" + VERSION or len(tail) != 8:  # else it is a right request
        refused(server, [(head + tail, ROWS)])
        refused(server, [(head + tail or b"\0", None)])


@st.composite
def claims(draw: st.DrawFn) -> bytes:
    """A header whose numbers claim anything, over as much as is there."""
    name = draw(st.binary(max_size=20))
    fixed = wire.FIXED.pack(
        b"SBTC", wire.VERSION, draw(st.integers(0, 4)), draw(st.integers(0, 255)), draw(WIDE), draw(WIDE),
        draw(NUMBERS), draw(NUMBERS), draw(NUMBERS), draw(NUMBERS), draw(NUMBERS), draw(st.integers(0, 2**16 - 1)),
        draw(st.one_of(st.just(len(name)), st.integers(0, 2**16 - 1))), draw(WIDE),
    )  # fmt: skip
    return fixed + draw(st.binary(max_size=60)) + name


@FUZZ
@given(claims(), st.booleans())
def test_header_that_claims_anything_is_refused(server: ShuffleServer, header: bytes, rows: bool) -> None:
    refused(server, [(header, ROWS if rows else None)])


@st.composite
def headers(draw: st.DrawFn) -> wire.Header:
    """Well formed, of the open shuffle, and wrong: of rows that are not there."""
    extents = draw(st.lists(st.tuples(NUMBERS, st.one_of(st.just(3), WIDE), WIDE), max_size=4))
    return wire.Header(
        shuffle_id=draw(st.sampled_from(["s", "", "t", "s/1", "\0", "ü" * 200])),
        kind=draw(st.sampled_from([wire.CHUNK, wire.MANIFEST])),
        checksum=draw(WIDE),
        epoch=draw(NUMBERS),
        task=draw(NUMBERS),
        attempt=draw(NUMBERS),
        sequence=draw(st.integers(1, 2**32 - 1)),
        extents=tuple(extents),
        keys=tuple(draw(st.lists(st.integers(0, 2**16 - 1), max_size=3))),
        by_hash=draw(st.booleans()),
        bytes_held=draw(st.one_of(st.just(1 << 12), WIDE)),
    )


@FUZZ
@given(st.lists(st.tuples(headers(), st.booleans()), min_size=1, max_size=4))
def test_wrong_chunks_and_manifests_are_refused(
    server: ShuffleServer, messages: list[tuple[wire.Header, bool]]
) -> None:
    refused(server, [(header, ROWS if rows else None) for header, rows in messages])


@FUZZ
@given(st.integers(0, 2**32), st.lists(WIDE, max_size=3))
def test_requests_for_any_credit_are_answered(make_server: MakeServer, first: int, more: list[int]) -> None:
    server = make_server(ledger=_native.Ledger(64 << 20))
    requests = [wire.request_credit(total) for total in (first, *more)]
    try:
        answers = wire.put(server.address, [(request, None) for request in requests], ROWS.schema)
    except pa.ArrowException as error:
        assert "[sabot:3]" in str(error)
    else:
        assert {(answer.kind, answer.code) for answer in answers} <= {(wire.CREDIT, 0), (wire.CREDIT, wire.LIMIT)}
    server.close()


@FUZZ
@given(
    st.lists(
        st.one_of(st.sampled_from(["sabot", "chunks", "publish", "shuffle", "s", "0", "-1", ""]), st.text()), max_size=5
    )
)
def test_descriptor_of_anything_is_refused(server: ShuffleServer, path: list[str]) -> None:
    if path[:2] == ["sabot", "chunks"] and len(path) == 3 and 0 < len(path[2].encode()) <= 64:
        return
    try:
        wire.put_plain(server.address, tuple(path), [ROWS], announced=2)
    except pa.ArrowException as error:
        assert any(code in str(error) for code in TYPED), error
    else:
        raise AssertionError("rows of another number than announced were taken")


@FUZZ
@given(
    st.one_of(
        st.binary(max_size=100),
        st.tuples(st.sampled_from(["published", "shuffle", ""]), st.text(max_size=20), st.text(max_size=10)).map(
            lambda parts: ":".join(["sabot:1", *parts]).encode()
        ),
    )
)
def test_ticket_of_anything_is_refused(server: ShuffleServer, ticket: bytes) -> None:
    with flight.connect(f"grpc://{server.address}") as client, pytest.raises(pa.ArrowException) as raised:
        client.do_get(flight.Ticket(ticket)).read_all()
    assert any(code in str(raised.value) for code in TYPED)


@FUZZ
@given(st.text(max_size=20), st.binary(max_size=100))
def test_action_of_any_name_is_refused(server: ShuffleServer, name: str, body: bytes) -> None:
    with flight.connect(f"grpc://{server.address}") as client:
        if name == "ping":
            return
        with pytest.raises(pa.ArrowException, match=r"\[sabot:1\]"):
            list(client.do_action(flight.Action(name, body)))


@FUZZ
@given(st.one_of(st.binary(max_size=40), st.tuples(st.just(b"SBTE"), WIDE).map(lambda end: struct.pack("<4sQ", *end))))
def test_last_message_of_anything_is_refused(server: ShuffleServer, last: bytes) -> None:
    with flight.connect(f"grpc://{server.address}") as client:
        descriptor = flight.FlightDescriptor.for_path("sabot", "publish", "fuzz", "0")
        writer, reader = client.do_put(descriptor, ROWS.schema)
        if last == struct.pack("<4sQ", b"SBTE", 3):
            return
        with pytest.raises(pa.ArrowException) as raised:
            writer.write_batch(ROWS)
            writer.write_metadata(last or b"\0")
            writer.done_writing()
            reader.read()
            writer.close()
    assert any(code in str(raised.value) for code in TYPED)


class Answering(flight.FlightServerBase):
    """Answers whatever it is sent with bytes that the test chooses."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.answers: list[bytes] = []

    def do_put(
        self,
        _context: flight.ServerCallContext,
        _descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        for answer in self.answers:
            writer.write(answer)
        for _ in reader:
            pass

    def do_get(self, _context: flight.ServerCallContext, _ticket: flight.Ticket) -> flight.GeneratorStream:
        return flight.GeneratorStream(ROWS.schema, iter([(ROWS, answer) for answer in self.answers]))

    def do_action(self, _context: flight.ServerCallContext, _action: flight.Action) -> list[flight.Result]:
        return [flight.Result(answer) for answer in self.answers]


@pytest.fixture
def answering() -> Iterator[Answering]:
    with Answering() as server:
        yield server


ACKS = st.builds(
    lambda kind, code, task, granted, length, tail: wire.ACK.pack(
        b"SBTA", wire.VERSION, kind, 0, code, task, 0, 0, granted, length
    )
    + tail,
    st.integers(0, 255), st.integers(-(2**31), 2**31 - 1), NUMBERS, WIDE, st.integers(0, 2**16 - 1),
    st.binary(max_size=9),
)  # fmt: skip


@settings(FUZZ, max_examples=30)
@given(st.lists(st.one_of(st.binary(min_size=1, max_size=60), ACKS), min_size=1, max_size=3))
def test_acknowledgements_of_anything_confirm_nothing(
    make_transport: Callable[..., ShuffleTransport], answering: Answering, answers: list[bytes]
) -> None:
    answering.answers = answers
    sender = make_transport(resume_s=0.0, stream_timeout_s=2.0)
    sender.start_shuffle("s", 2, [sender.address, f"127.0.0.1:{answering.port}"])
    with pytest.raises(SabotError):
        sender.send_partition("s", 1, ROWS)
        sender.finish_shuffle("s", timeout_s=0.5)
    sender.close()


@FUZZ
@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=3))
def test_marks_and_pings_of_anything_are_refused(answering: Answering, answers: list[bytes]) -> None:
    answering.answers = answers
    address = f"127.0.0.1:{answering.port}"
    with ShuffleClient() as client:
        for ask in (lambda: client.fetch_partition(address, "r", 0), lambda: client.ping(address)):
            with pytest.raises(PeerError):
                ask()
