"""Credits: a sender sends what its peer has reserved memory for, a stranger no more, and waiting has an end."""

from __future__ import annotations

import time
from collections.abc import Callable

import pyarrow as pa
import pytest
from pyarrow import flight

from sabot.errors import LimitReached
from sabot.native._native import Ledger
from sabot.shuffle import ShuffleServer, ShuffleTransport
from tests.shuffle import wire

MakeTransport = Callable[..., ShuffleTransport]
MakeServer = Callable[..., ShuffleServer]
MIB = 1 << 20
KIB = 1 << 10
WAIT_S = 30.0
CHUNK = 256 * KIB
ROWS = pa.record_batch({"a": pa.array(range(CHUNK // 8), pa.int64())})


def full(ledger: Ledger) -> int:
    """Fills the ledger up to its high-water mark with a task's reservation; how much that was."""
    taken = 0
    for bytes_each in (MIB, 64 * KIB, KIB):
        while ledger.try_reserve_task(bytes_each):
            taken += bytes_each
    return taken


def wait_until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not so():
        assert time.monotonic() < deadline


def start(sender: ShuffleTransport, receiver: ShuffleTransport, name: str = "s") -> None:
    sender.start_shuffle(name, 2, [sender.address, receiver.address])
    receiver.start_shuffle(name, 2, [sender.address, receiver.address])


def test_stream_begins_with_credit_and_each_answer_grants_more(make_server: MakeServer) -> None:
    ledger = Ledger(64 * MIB)
    server = make_server(ledger=ledger, chunk_bytes_max=CHUNK)
    server.start_shuffle("s", 1, [server.address])
    chunks = [wire.chunk("s", ROWS, sequence=i) for i in range(3)]
    opening, *acks = wire.put_heedless(server.address, [(header, ROWS) for header in chunks], ROWS.schema)
    ordinary = CHUNK + CHUNK // 4 + 64 * KIB
    assert (opening.kind, opening.granted) == (wire.CREDIT, 2 * ordinary)
    assert [ack.granted for ack in acks] == [2 * ordinary + (i + 1) * chunks[0].bytes_held for i in range(3)]
    wait_until(lambda: ledger.snapshot()["credits"] == 0)


def send_heedlessly(server: ShuffleServer) -> list[int]:
    """The codes that a writer of six chunks gets who has credit for one."""
    server.start_shuffle("s", 1, [server.address])
    messages = [(wire.chunk("s", ROWS, sequence=i), ROWS) for i in range(6)]
    return [ack.code for ack in wire.put_heedless(server.address, messages, ROWS.schema)[1:]]


def test_chunks_beyond_the_credit_are_refused_by_type_and_not_kept(make_server: MakeServer) -> None:
    ledger = Ledger(16 * MIB)
    server = make_server(ledger=ledger, chunk_bytes_max=CHUNK)
    full(ledger)
    codes = send_heedlessly(server)
    assert codes == [wire.LIMIT] * 6
    assert server.native.stats()["stored_chunks"] == 0


def test_without_the_check_a_stranger_fills_the_memory(make_server: MakeServer) -> None:
    ledger = Ledger(16 * MIB)
    server = make_server(ledger=ledger, chunk_bytes_max=CHUNK, check_credits=False)
    full(ledger)
    assert send_heedlessly(server) == [0] * 6
    assert server.native.stats()["stored_chunks"] == 6


@pytest.mark.parametrize("check", [True, False])
def test_chunk_larger_than_its_header_says_is_refused(make_server: MakeServer, check: bool) -> None:
    server = make_server(check_credits=check)
    server.start_shuffle("s", 1, [server.address])
    (ack,) = wire.put(server.address, [(wire.chunk("s", ROWS, bytes_held=CHUNK - 1), ROWS)], ROWS.schema)
    assert ack.code == (wire.LIMIT if check else 0)


def test_sender_waits_for_memory_and_goes_on_when_it_is_free(make_transport: MakeTransport) -> None:
    ledger = Ledger(16 * MIB)
    receiver, sender = make_transport(ledger=ledger, chunk_bytes_max=CHUNK), make_transport(chunk_bytes_max=CHUNK)
    start(sender, receiver)
    taken = full(ledger)
    for _ in range(8):
        sender.send_partition("s", 1, ROWS)
    sender.finish_shuffle("s")
    receiver.finish_shuffle("s")
    ledger.unreserve_task(taken)
    assert receiver.receive_partition("s", 1, timeout_s=WAIT_S).read_all().num_rows == 8 * ROWS.num_rows


def test_peer_without_memory_is_a_limit_and_not_a_lost_peer(make_transport: MakeTransport) -> None:
    ledger = Ledger(4 * MIB)
    receiver = make_transport(ledger=ledger, chunk_bytes_max=CHUNK)
    sender = make_transport(stream_timeout_s=1.5)
    start(sender, receiver)
    full(ledger)
    sender.send_partition("s", 1, pa.record_batch({"a": pa.array(range(MIB // 8), pa.int64())}))
    with pytest.raises(LimitReached, match=rf"{receiver.address} has had no memory .*memory\.bytes_max"):
        sender.finish_shuffle("s", timeout_s=WAIT_S)


def test_chunk_that_can_never_fit_is_refused_at_once(make_transport: MakeTransport) -> None:
    receiver = make_transport(ledger=Ledger(4 * MIB), chunk_bytes_max=CHUNK)
    sender = make_transport(chunk_bytes_max=8 * MIB)
    start(sender, receiver)
    begun = time.monotonic()
    sender.send_partition("s", 1, pa.record_batch({"a": pa.array(range(4 * MIB // 8), pa.int64())}))
    with pytest.raises(LimitReached, match=r"more than the agent's memory has room for.*memory\.bytes_max"):
        sender.finish_shuffle("s", timeout_s=WAIT_S)
    assert time.monotonic() - begun < 10


def test_chunk_larger_than_the_ordinary_ones_gets_its_credit(make_transport: MakeTransport) -> None:
    receiver = make_transport(ledger=Ledger(64 * MIB), chunk_bytes_max=CHUNK)
    sender = make_transport(chunk_bytes_max=8 * MIB)
    start(sender, receiver)
    rows = pa.record_batch({"a": pa.array(range(6 * MIB // 8), pa.int64())})
    sender.send_partition("s", 1, rows)
    sender.finish_shuffle("s", timeout_s=WAIT_S)
    assert receiver.stats()["stored_chunks"] == 1


def test_peer_that_waits_has_a_chunk_of_its_own_though_others_filled_the_memory(make_server: MakeServer) -> None:
    ledger = Ledger(16 * MIB)
    server = make_server(ledger=ledger, chunk_bytes_max=CHUNK)
    server.start_shuffle("s", 1, [server.address])
    full(ledger)
    header = wire.chunk("s", ROWS)
    messages = [(wire.request_credit(header.bytes_held), None), (header, ROWS)]
    opening, answer, ack = wire.put_heedless(server.address, messages, ROWS.schema)
    assert (opening.granted, answer.granted, ack.code) == (0, header.bytes_held, 0)


def test_two_agents_whose_outboxes_for_each_other_are_full_go_on(make_transport: MakeTransport) -> None:
    ledgers = [Ledger(24 * MIB), Ledger(24 * MIB)]
    first, second = (make_transport(ledger=ledger, chunk_bytes_max=CHUNK) for ledger in ledgers)
    start(first, second)
    for ledger in ledgers:
        full(ledger)
    for _ in range(40):
        first.send_partition("s", 1, ROWS)
        second.send_partition("s", 0, ROWS)
    assert all(ledger.snapshot()["outbox"] > 0 for ledger in ledgers)
    for transport in (first, second):
        transport.finish_shuffle("s")
    for partition, transport in enumerate((first, second)):
        rows = transport.receive_partition("s", partition, timeout_s=WAIT_S).read_all()
        assert rows.num_rows == 40 * ROWS.num_rows
    for transport in (first, second):
        transport.end_shuffle("s")
    wait_until(lambda: all(ledger.snapshot()["outbox"] == 0 for ledger in ledgers))


def test_request_for_credit_is_answered_within_its_time_though_none_is_there(make_server: MakeServer) -> None:
    ledger = Ledger(16 * MIB)
    server = make_server(ledger=ledger, chunk_bytes_max=CHUNK)
    full(ledger)
    begun = time.monotonic()
    _, answer = wire.put_heedless(server.address, [(wire.request_credit(8 * MIB), None)], ROWS.schema)
    assert (answer.kind, answer.code, answer.granted) == (wire.CREDIT, 0, 0)
    assert time.monotonic() - begun < 5


def test_those_who_wait_for_credit_do_not_hold_up_the_end(make_server: MakeServer) -> None:
    ledger = Ledger(16 * MIB)
    server = make_server(ledger=ledger, chunk_bytes_max=CHUNK)
    full(ledger)
    with flight.connect(f"grpc://{server.address}") as client:
        descriptor = flight.FlightDescriptor.for_path("sabot", "chunks", "waits")
        streams = [client.do_put(descriptor, ROWS.schema) for _ in range(20)]
        for writer, _ in streams:
            writer.write_metadata(wire.request_credit(8 * MIB))
        wait_until(lambda: server.native.stats()["streams_open"] == 20)
        begun = time.monotonic()
        server.close()
        assert time.monotonic() - begun < 5
        for writer, _ in streams:
            with pytest.raises(pa.ArrowException):
                writer.close()
