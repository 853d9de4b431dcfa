"""Clients that hang: they hold no thread for ever, keep nobody else out, and do not hold up the end."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import flight

from sabot.native import _native
from sabot.shuffle import ShuffleClient, ShuffleServer
from tests.shuffle import wire
from tests.shuffle.faulty_proxy import FaultyProxy

MakeServer = Callable[..., ShuffleServer]
SCHEMA = pa.schema({"a": pa.int64()})
NAMED = ("sabot", "publish", "n", "0")


@contextmanager
def hung_put(address: str) -> Iterator[flight.FlightMetadataReader]:
    """A DoPut that has said what it is, and then says nothing."""
    with flight.FlightClient(f"grpc://{address}") as client:
        writer, reader = client.do_put(flight.FlightDescriptor.for_path(*NAMED), SCHEMA)
        try:
            yield reader
        finally:
            with suppress(pa.ArrowException):
                writer.close()


def wait_for_streams(server: ShuffleServer, count: int) -> None:
    deadline = time.monotonic() + 30
    while server.native.stats()["streams_open"] != count:
        assert time.monotonic() < deadline


def test_streams_beyond_the_limit_are_refused_and_fewer_are_not(make_server: MakeServer, rows: pa.RecordBatch) -> None:
    server = make_server(streams_max=3)
    server.publish("ready", 0, [rows], rows.schema)
    with ExitStack() as hung:
        for _ in range(3):
            hung.enter_context(hung_put(server.address))
        wait_for_streams(server, 3)
        with pytest.raises(pa.ArrowException, match=r"has 3 streams open.*shuffle\.streams_max"):
            wire.put_plain(server.address, NAMED, [rows], announced=100)
        with pytest.raises(pa.ArrowException, match="has 3 streams open"):
            wire.get(server.address, _native.ticket_of("ready", 0))
        with ShuffleClient() as client:
            assert client.ping(server.address).incarnation == server.incarnation
    wait_for_streams(server, 0)
    table, _ = wire.get(server.address, _native.ticket_of("ready", 0))
    assert table.num_rows == 100


def test_stream_that_says_nothing_is_ended_and_one_that_goes_on_is_not(make_server: MakeServer) -> None:
    server = make_server(stream_idle_s=2.0)
    with flight.FlightClient(f"grpc://{server.address}") as client, hung_put(server.address) as hung:
        writer, reader = client.do_put(flight.FlightDescriptor.for_path("sabot", "publish", "live", "0"), SCHEMA)
        ended = threading.Event()

        def wait_for_the_end() -> None:
            with suppress(pa.ArrowException):
                hung.read()
            ended.set()

        waiting = threading.Thread(target=wait_for_the_end)
        waiting.start()
        sent = 0
        deadline = time.monotonic() + 30
        while not ended.wait(0.1):
            writer.write_batch(pa.record_batch({"a": [sent]}))
            sent += 1
            assert time.monotonic() < deadline
        waiting.join()
        writer.write_metadata(struct.pack("<4sQ", b"SBTE", sent))
        writer.done_writing()
        assert reader.read() is not None
        writer.close()
    assert sent >= 5
    assert server.find("live", 0).read_all()["a"].to_pylist() == list(range(sent))


def test_reader_that_hangs_is_cut_off(make_server: MakeServer) -> None:
    server = make_server(stream_idle_s=0.5)
    big = pa.record_batch({"a": pa.array(range(1 << 20), pa.int64())})
    server.publish("big", 0, [big] * 8, big.schema)
    with FaultyProxy(server.address) as proxy:
        with flight.FlightClient(f"grpc://{proxy.address}") as client:
            reading = client.do_get(flight.Ticket(_native.ticket_of("big", 0).encode()))
            reading.read_chunk()
            proxy.stall()
            wait_for_streams(server, 0)


FROZEN_SENDER = """
    import sys
    import pyarrow as pa
    from sabot.shuffle import ShuffleTransport

    transport = ShuffleTransport(stream_timeout_s=2.0)
    transport.start_shuffle("s", 2, [transport.address, sys.argv[1]])
    while True:
        transport.send_partition("s", 1, pa.record_batch({"a": [1, 2, 3]}))
"""


def test_handlers_of_a_sender_that_freezes_are_free_at_the_deadline_of_its_streams(make_server: MakeServer) -> None:
    server = make_server()
    server.start_shuffle("s", 1, [server.address], senders=0)
    command = [sys.executable, "-c", textwrap.dedent(FROZEN_SENDER), server.address]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as sender:
        try:
            deadline = time.monotonic() + 30
            while server.native.stats()["chunks_received"] + server.native.stats()["streams_open"] < 1:
                assert time.monotonic() < deadline
            sender.send_signal(signal.SIGSTOP)
            wait_for_streams(server, 0)
        finally:
            sender.kill()


def test_server_with_hung_streams_closes_in_time(make_server: MakeServer) -> None:
    server = make_server()
    with ExitStack() as hung:
        for _ in range(200):
            hung.enter_context(hung_put(server.address))
        wait_for_streams(server, 200)
        begun = time.monotonic()
        server.close()
        assert time.monotonic() - begun < 5
