"""Calls that used to be answered wrongly in silence: now each is an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from sabot.errors import JobCancelled, PeerLost, PeerRefused, ShuffleIntegrityError, UsageError
from sabot.shuffle import ShuffleServer, ShuffleTransport
from sabot.shuffle.partitioning import HashPartitioning

MakeTransport = Callable[..., ShuffleTransport]
MakeServer = Callable[..., ShuffleServer]


def opened_job(make: MakeTransport, rows: pa.RecordBatch) -> list[ShuffleTransport]:
    transports = [make(), make()]
    for transport in transports:
        transport.open_shuffle("s", num_partitions=4, owners=[each.address for each in transports], schema=rows.schema)
    return transports


def test_reading_a_partition_of_another_agent_is_not_answered_with_no_rows(
    make_transport: MakeTransport, rows: pa.RecordBatch
) -> None:
    first, second = opened_job(make_transport, rows)
    writer = first.attempt_writer("s", task=0, attempt=0, partitioning=HashPartitioning(("number",)))
    writer.write([rows])
    writer.finish(timeout_s=10)
    owned = [transport.read_partition("s", p, attempts=[(0, 0)]).rows for transport, p in ((first, 0), (second, 1))]
    assert all(owned)
    with pytest.raises(UsageError, match=second.address):
        first.read_partition("s", 1, attempts=[(0, 0)])
    with pytest.raises(UsageError, match="there is no partition 4"):
        first.read_partition("s", 4, attempts=[(0, 0)])


@pytest.mark.parametrize("attempts", [[(0, 0), (0, 0)], [(0, 0), (0, 1)]])
def test_reading_one_task_twice_is_a_usage_error(
    make_transport: MakeTransport, rows: pa.RecordBatch, attempts: list[tuple[int, int]]
) -> None:
    first, _ = opened_job(make_transport, rows)
    for attempt in (0, 1):
        writer = first.attempt_writer("s", task=0, attempt=attempt, partitioning=HashPartitioning(("number",)))
        writer.write([rows])
        writer.finish(timeout_s=10)
    with pytest.raises(UsageError, match="task 0 named twice"):
        first.read_partition("s", 0, attempts=attempts)


def test_shuffle_opened_again_with_other_agents_or_schema_is_a_usage_error(
    make_transport: MakeTransport, rows: pa.RecordBatch
) -> None:
    transport = make_transport()
    me, one, other = transport.address, "127.0.0.1:1", "127.0.0.1:2"
    transport.start_shuffle("s", 2, [me, one])
    transport.start_shuffle("s", 2, [me, one])
    with pytest.raises(UsageError, match="other agents"):
        transport.start_shuffle("s", 2, [me, other])
    with pytest.raises(UsageError, match="open already"):
        transport.open_shuffle("s", num_partitions=2, owners=[me, one])
    assert transport.server.owners("s") == [me, one]
    transport.open_shuffle("t", num_partitions=2, owners=[me, one], schema=rows.schema)
    with pytest.raises(UsageError, match="another schema"):
        transport.open_shuffle("t", num_partitions=2, owners=[me, one], schema=pa.schema([("else", pa.int8())]))


def test_ending_a_finished_shuffle_waits_until_its_rows_are_confirmed(make_transport: MakeTransport) -> None:
    first, second = make_transport(open_wait_s=10.0), make_transport(open_wait_s=10.0)
    agents = [first.address, second.address]
    for transport in (first, second):
        transport.start_shuffle("s", 2, agents)
    for start in range(0, 100_000, 1000):
        first.send_partition("s", 1, pa.record_batch({"v": list(range(start, start + 1000))}))
    second.finish_shuffle("s", timeout_s=10)
    first.finish_shuffle("s")
    first.end_shuffle("s")
    assert second.receive_partition("s", 1).read_all()["v"].to_pylist() == list(range(100_000))


def test_ending_a_shuffle_that_a_peer_never_confirms_names_the_peer(
    make_transport: MakeTransport, rows: pa.RecordBatch
) -> None:
    first, second = make_transport(stream_timeout_s=0.5), make_transport(open_wait_s=5.0)
    first.start_shuffle("s", 2, [first.address, second.address])
    first.send_partition("s", 1, rows)
    first.finish_shuffle("s")
    with pytest.raises(PeerLost, match=second.address):
        first.end_shuffle("s")


def test_rows_of_a_failed_write_cannot_be_written_again(make_transport: MakeTransport, rows: pa.RecordBatch) -> None:
    transport = make_transport()
    owners = [transport.address, "no address"]
    transport.open_shuffle("s", num_partitions=2, owners=owners, schema=rows.schema)
    writer = transport.attempt_writer("s", task=0, attempt=0, partitioning=HashPartitioning(("number",)))
    for _ in range(2):
        with pytest.raises(UsageError, match="no address"):
            writer.write([rows])
    with pytest.raises(UsageError, match="no address"):
        writer.finish(timeout_s=5)
    with pytest.raises(PeerLost, match="manifest of one of its attempts has not come"):
        transport.read_partition("s", 0, attempts=[(0, 0)])


def test_writing_on_after_the_shuffle_was_dropped_opens_no_new_links(
    make_transport: MakeTransport, rows: pa.RecordBatch
) -> None:
    first, second = opened_job(make_transport, rows)
    writer = first.attempt_writer("s", task=0, attempt=0, partitioning=HashPartitioning(("number",)))
    first.client.end_shuffle("s")
    with pytest.raises(JobCancelled, match="was ended while it was being sent"):
        writer.write([rows])
    assert second.stats()["chunks_received"] == 0


@pytest.mark.parametrize(("task", "attempt"), [(-1, 0), (1 << 31, 0), (0, -1), (0, 1 << 31)])
def test_task_and_attempt_beyond_the_wires_numbers_are_usage_errors(
    make_transport: MakeTransport, rows: pa.RecordBatch, task: int, attempt: int
) -> None:
    first, _ = opened_job(make_transport, rows)
    with pytest.raises(UsageError, match="must be from 0 to"):
        first.attempt_writer("s", task=task, attempt=attempt, partitioning=HashPartitioning(("number",)))


def test_publishing_without_a_schema_or_beyond_the_indices_is_a_usage_error(
    make_server: MakeServer, rows: pa.RecordBatch
) -> None:
    server = make_server()
    with pytest.raises(UsageError, match=r"pyarrow\.Schema, not NoneType"):
        server.publish("p", 0, [rows], None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"pyarrow\.Schema, not str"):
        server.start_shuffle("s", 1, [server.address], schema="number")  # type: ignore[arg-type]
    for index in (-1, 1 << 31):
        with pytest.raises(UsageError, match="no whole number"):
            server.publish("p", index, [rows], rows.schema)


@pytest.mark.parametrize("shuffle_id", ["007", "²", "s) (message=1", "a,b", "[sabot:7]x"])
def test_odd_ids_neither_spoil_the_error_nor_turn_into_numbers(make_server: MakeServer, shuffle_id: str) -> None:
    server = make_server()
    server.start_shuffle(shuffle_id, 1, [server.address], senders=0)
    with pytest.raises(PeerLost, match="manifest of one of its attempts") as caught:
        server.read_partition(shuffle_id, 0, attempts=[(0, 0)])
    assert caught.value.facts.get("shuffle") in (shuffle_id, None)


@pytest.mark.parametrize("timeout_s", [float("inf"), 1e300, 1e10])
def test_timeouts_without_end_are_long_not_over(
    make_transport: MakeTransport, rows: pa.RecordBatch, timeout_s: float
) -> None:
    first, second = make_transport(open_wait_s=timeout_s), make_transport(stream_timeout_s=timeout_s)
    agents = [first.address, second.address]
    for transport in (first, second):
        transport.start_shuffle("s", 2, agents, processor=lambda batch: batch)
    second.send_partition("s", 0, rows)
    for transport in (first, second):
        transport.finish_shuffle("s", timeout_s=timeout_s)
    assert first.receive_partition("s", 0, timeout_s=timeout_s).read_all().num_rows == 100
    first.register_partition("r", 0, rows)
    assert second.fetch_partition(first.address, "r", 0, timeout_s=timeout_s).read_all().num_rows == 100
    assert second.ping(first.address, timeout_s=timeout_s).incarnation == first.server.incarnation


def test_agent_back_at_the_same_address_is_another(make_server: MakeServer, rows: pa.RecordBatch) -> None:
    with ShuffleTransport(stream_timeout_s=5.0) as sender:
        gone = make_server()
        sender.start_shuffle("s", 2, [sender.address, gone.address])
        gone.start_shuffle("s", 2, [sender.address, gone.address])
        sender.send_partition("s", 1, rows)
        while gone.native.stats()["stored_chunks"] == 0:
            pass
        gone.close()
        back = make_server(port=gone.port)
        back.start_shuffle("s", 2, [sender.address, back.address])
        with pytest.raises((PeerLost, PeerRefused, ShuffleIntegrityError)):
            sender.finish_shuffle("s", timeout_s=10)
        with pytest.raises((PeerLost, PeerRefused, ShuffleIntegrityError)):
            sender.end_shuffle("s")
