"""The verbs of ShuffleTransport, between transports of this process over real sockets."""

from __future__ import annotations

import collections
from collections.abc import Callable

import pyarrow as pa
import pytest

from sabot.errors import LimitReached, PeerLost, PeerRefused, UsageError
from sabot.shuffle import ShuffleClient, ShuffleServer, ShuffleTransport
from tests.shuffle.faulty_proxy import FaultyProxy

MakeTransport = Callable[..., ShuffleTransport]
MakeServer = Callable[..., ShuffleServer]


def started(make: MakeTransport, count: int, shuffle_id: str = "s", partitions: int = 4) -> list[ShuffleTransport]:
    transports = [make() for _ in range(count)]
    for transport in transports:
        transport.start_shuffle(shuffle_id, partitions, [each.address for each in transports])
    return transports


def unused_address(make: MakeServer) -> str:
    server = make()
    server.close()
    return server.address


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_row_sent_is_received_once(make_transport: MakeTransport, count: int) -> None:
    transports = started(make_transport, count)
    sent = collections.Counter()
    for sender, transport in enumerate(transports):
        for partition in range(4):
            values = [(sender, partition, i) for i in range(50 * (sender + 1))]
            sent.update((partition, str(value)) for value in values)
            transport.send_partition("s", partition, pa.record_batch({"v": [str(value) for value in values]}))
    for transport in transports:
        transport.finish_shuffle("s")
    received = collections.Counter()
    for partition in range(4):
        table = transports[partition % count].receive_partition("s", partition).read_all()
        received.update((partition, value) for value in table["v"].to_pylist())
    assert received == sent


def test_rows_of_one_sender_keep_their_order(make_transport: MakeTransport) -> None:
    first, second = started(make_transport, 2)
    for start in range(0, 300, 100):
        first.send_partition("s", 1, pa.record_batch({"v": list(range(start, start + 100))}))
    first.finish_shuffle("s")
    second.finish_shuffle("s")
    assert second.receive_partition("s", 1).read_all()["v"].to_pylist() == list(range(300))


def test_rows_larger_than_a_chunk_arrive_whole(make_transport: MakeTransport) -> None:
    first, second = started(make_transport, 2)
    batch = pa.record_batch({"v": pa.array(range(2_000_000), pa.int64())})
    first.send_partition("s", 1, batch)
    first.finish_shuffle("s")
    second.finish_shuffle("s")
    assert second.receive_partition("s", 1).read_all()["v"].to_pylist() == list(range(2_000_000))
    assert second.stats()["stored_chunks"] == 4


def test_rows_sent_before_the_owner_has_started_wait_for_it(
    make_transport: MakeTransport, rows: pa.RecordBatch
) -> None:
    early, late = make_transport(open_wait_s=10.0), make_transport(open_wait_s=10.0)
    agents = [early.address, late.address]
    early.start_shuffle("s", 2, agents)
    early.send_partition("s", 1, rows)
    early.finish_shuffle("s")
    late.start_shuffle("s", 2, agents)
    late.finish_shuffle("s")
    assert late.receive_partition("s", 1).read_all().num_rows == 100


def test_owner_that_never_starts_refuses_by_type(make_transport: MakeTransport, rows: pa.RecordBatch) -> None:
    sender, idle = make_transport(), make_transport()
    sender.start_shuffle("s", 2, [sender.address, idle.address])
    sender.send_partition("s", 1, rows)
    with pytest.raises(PeerRefused, match="not known to this agent"):
        sender.finish_shuffle("s", timeout_s=10)


def test_dead_owner_is_named(make_transport: MakeTransport, make_server: MakeServer, rows: pa.RecordBatch) -> None:
    sender, dead = make_transport(stream_timeout_s=2.0), unused_address(make_server)
    sender.start_shuffle("s", 2, [sender.address, dead])
    sender.send_partition("s", 1, rows)
    with pytest.raises(PeerLost, match=dead):
        sender.finish_shuffle("s", timeout_s=10)


def test_failed_sending_is_told_at_the_end_too(make_transport: MakeTransport, rows: pa.RecordBatch) -> None:
    sender, idle = make_transport(), make_transport()
    sender.start_shuffle("s", 2, [sender.address, idle.address])
    sender.send_partition("s", 1, rows)
    with pytest.raises(PeerRefused):
        sender.finish_shuffle("s", timeout_s=10)
    with pytest.raises(PeerRefused):
        sender.end_shuffle("s")


def test_unfinished_sender_keeps_the_partition_incomplete(make_transport: MakeTransport) -> None:
    first, _ = started(make_transport, 2)
    first.finish_shuffle("s")
    with pytest.raises(LimitReached, match="not every sender has called finish_shuffle"):
        first.receive_partition("s", 0, timeout_s=0.05)


def test_partition_of_another_agent_names_its_owner(make_transport: MakeTransport) -> None:
    first, second = started(make_transport, 2)
    with pytest.raises(UsageError, match=second.address):
        first.receive_partition("s", 1)


def test_target_agent_receives_what_was_sent_to_it(make_transport: MakeTransport, rows: pa.RecordBatch) -> None:
    first, second = started(make_transport, 2)
    first.send_partition("s", 0, rows, target_agent=second.address)
    first.finish_shuffle("s")
    second.finish_shuffle("s")
    assert second.receive_partition("s", 0).read_all().num_rows == 100
    assert first.receive_partition("s", 0).read_all().num_rows == 0


def test_partition_without_rows_has_the_senders_schema(make_transport: MakeTransport, rows: pa.RecordBatch) -> None:
    first, second = started(make_transport, 2)
    first.send_partition("s", 0, rows)
    first.finish_shuffle("s")
    second.finish_shuffle("s")
    empty = second.receive_partition("s", 1).read_all()
    assert (empty.num_rows, empty.schema) == (0, rows.schema)


def test_shuffle_that_nobody_sent_to_has_no_columns(make_transport: MakeTransport) -> None:
    first, second = started(make_transport, 2)
    first.finish_shuffle("s")
    second.finish_shuffle("s")
    assert first.receive_partition("s", 0).read_all().schema == pa.schema([])


def test_two_schemas_in_one_shuffle_are_a_usage_error(make_transport: MakeTransport, rows: pa.RecordBatch) -> None:
    (only,) = started(make_transport, 1)
    only.send_partition("s", 0, rows)
    with pytest.raises(UsageError, match="Cast"):
        only.send_partition("s", 0, pa.record_batch({"number": ["text"]}))


def test_rows_after_finish_are_a_usage_error(make_transport: MakeTransport, rows: pa.RecordBatch) -> None:
    (only,) = started(make_transport, 1)
    only.finish_shuffle("s")
    with pytest.raises(UsageError, match="finished"):
        only.send_partition("s", 0, rows)


def test_ended_shuffle_frees_its_rows_and_refuses_the_id(make_transport: MakeTransport, rows: pa.RecordBatch) -> None:
    (only,) = started(make_transport, 1)
    only.send_partition("s", 0, rows)
    only.finish_shuffle("s")
    assert only.stats()["stored_bytes"] > 0
    only.end_shuffle("s")
    assert only.stats()["stored_bytes"] == 0
    with pytest.raises(UsageError, match="has ended"):
        only.start_shuffle("s", 4, [only.address])


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda t, b: t.send_partition("unknown", 0, b), "start_shuffle first"),
        (lambda t, b: t.send_partition("s", 4, b), "there is no partition 4"),
        (lambda t, b: t.send_partition("s", 0, b, target_agent="127.0.0.1:1"), "takes no part"),
        (lambda t, b: t.send_partition("s", 0, [1, 2]), "takes a pyarrow.RecordBatch, not list"),
        (lambda t, b: t.start_shuffle("new", 0, [t.address]), "num_partitions is 0"),
        (lambda t, b: t.start_shuffle("new", 1, []), "not among the shuffle's agents"),
        (lambda t, b: t.start_shuffle("new", 1, [t.address, t.address]), "names an address twice"),
        (lambda t, b: t.start_shuffle("", 1, [t.address]), "1 to 512 bytes"),
        (lambda t, b: t.start_shuffle("s", 5, [t.address]), "open already with other"),
        (lambda t, b: t.register_partition("r", 0, "rows"), "takes a pyarrow.RecordBatch, not str"),
        (lambda t, b: t.fetch_partition(t.address, "r", 0), "Nothing is published"),
        (lambda t, b: t.fetch_partition("nowhere", "r", 0), "host:port"),
    ],
)
def test_wrong_calls_say_what_to_do(
    make_transport: MakeTransport,
    rows: pa.RecordBatch,
    call: Callable[[ShuffleTransport, pa.RecordBatch], object],
    expected: str,
) -> None:
    (only,) = started(make_transport, 1)
    with pytest.raises(UsageError, match=expected):
        call(only, rows)


def test_registered_partition_is_pulled_whole(make_transport: MakeTransport, rows: pa.RecordBatch) -> None:
    first, second = make_transport(), make_transport()
    first.register_partition("r", 3, rows)
    assert second.fetch_partition(first.address, "r", 3).read_all() == pa.table(rows)
    assert first.fetch_partition(first.address, "r", 3).read_all() == pa.table(rows)


def test_partition_registered_twice_is_a_usage_error(make_transport: MakeTransport, rows: pa.RecordBatch) -> None:
    transport = make_transport()
    transport.register_partition("r", 0, rows)
    with pytest.raises(UsageError, match="published already"):
        transport.register_partition("r", 0, rows)


def test_pull_of_what_is_not_there_keeps_its_type_over_the_wire(make_transport: MakeTransport) -> None:
    first, second = make_transport(), make_transport()
    with pytest.raises(UsageError, match="Nothing is published as part 9 of r"):
        second.fetch_partition(first.address, "r", 9)


def test_ping_tells_incarnations_apart(make_server: MakeServer) -> None:
    first, second = make_server(), make_server()
    with ShuffleClient() as client:
        assert client.ping(first.address).incarnation == first.incarnation
        assert client.ping(second.address).incarnation == second.incarnation != first.incarnation


def test_ping_of_nobody_is_lost_within_its_deadline(make_server: MakeServer) -> None:
    address = unused_address(make_server)
    with ShuffleClient() as client, pytest.raises(PeerLost, match=address):
        client.ping(address, timeout_s=0.5)


def test_ping_after_one_that_was_lost_has_a_connection_of_its_own(make_server: MakeServer) -> None:
    server = make_server()
    with FaultyProxy(server.address) as proxy, ShuffleClient() as client:
        assert client.ping(proxy.address).incarnation == server.incarnation
        proxy.strand()
        with pytest.raises(PeerLost, match=proxy.address):
            client.ping(proxy.address, timeout_s=0.2)
        assert client.ping(proxy.address, timeout_s=10).incarnation == server.incarnation
        assert proxy.connections == 2


def test_port_in_use_names_it_and_its_key(make_server: MakeServer) -> None:
    taken = make_server()
    with pytest.raises(UsageError, match=f"{taken.port}.*agent.port"):
        ShuffleServer(port=taken.port)


def test_processor_results_are_what_the_reader_gets(make_transport: MakeTransport, rows: pa.RecordBatch) -> None:
    first, second = make_transport(), make_transport()
    agents = [first.address, second.address]
    for transport in (first, second):
        transport.start_shuffle("s", 2, agents, processor=lambda batch: batch.select(["number"]).slice(0, 10))
    first.send_partition("s", 1, rows)
    second.send_partition("s", 1, rows)
    for transport in (first, second):
        transport.finish_shuffle("s")
    result = second.receive_partition("s", 1).read_all()
    assert result["number"].to_pylist() == list(range(10)) * 2


def test_processor_runs_in_slots_as_network_morsels(make_transport: MakeTransport, slots, rows: pa.RecordBatch) -> None:
    first, second = make_transport(), make_transport()
    for transport in (first, second):
        transport.start_shuffle("s", 2, [first.address, second.address], processor=lambda batch: None)
    first.send_partition("s", 1, rows)
    first.finish_shuffle("s")
    second.finish_shuffle("s")
    assert second.receive_partition("s", 1).read_all().num_rows == 0
    assert sum(slot["network_morsels"] for slot in slots.get_slot_stats()) >= 1


def test_exception_of_a_processor_is_raised_as_itself(make_transport: MakeTransport, rows: pa.RecordBatch) -> None:
    transport = make_transport()

    def broken(batch: pa.RecordBatch) -> pa.RecordBatch:
        raise ZeroDivisionError("my own")

    transport.start_shuffle("s", 1, [transport.address], processor=broken)
    transport.send_partition("s", 0, rows)
    transport.finish_shuffle("s")
    with pytest.raises(ZeroDivisionError, match="my own"):
        transport.receive_partition("s", 0)


def test_processor_without_slots_is_a_usage_error(make_server: MakeServer) -> None:
    server = make_server()
    with pytest.raises(UsageError, match="runs in slots"):
        server.start_shuffle("s", 1, [server.address], processor=lambda batch: batch)


def test_rows_from_the_wire_are_aligned_for_their_types(make_transport: MakeTransport) -> None:
    first, second = started(make_transport, 2)
    batch = pa.record_batch({"text": ["odd", "lengths", "a"], "number": pa.array([1, 2, 3], pa.int64())})
    for _ in range(5):
        first.send_partition("s", 1, batch)
    first.finish_shuffle("s")
    second.finish_shuffle("s")
    first.register_partition("r", 0, batch)
    for reader in (second.receive_partition("s", 1), second.fetch_partition(first.address, "r", 0)):
        for received in reader:
            assert received["number"].buffers()[1].address % 8 == 0
            assert received["text"].buffers()[1].address % 4 == 0
