"""What goes out: at once where the window allows, over as many streams as there is need of, to each peer by itself."""

from __future__ import annotations

import mmap
import queue
import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from sabot.errors import LimitReached, UsageError
from sabot.shuffle import ShuffleTransport
from tests.shuffle import wire
from tests.shuffle.faulty_proxy import FaultyProxy
from tests.shuffle.patient_server import WAIT_S, PatientServer

MakeTransport = Callable[..., ShuffleTransport]
ROWS = pa.record_batch({"a": pa.array(range(1000), pa.int64())})


@pytest.fixture
def peer() -> Iterator[PatientServer]:
    with PatientServer() as server:
        yield server
        server.answer_all()


def start(sender: ShuffleTransport, peer: PatientServer, chunks: int) -> None:
    sender.start_shuffle("s", 2, [sender.address, peer.address])
    for _ in range(chunks):
        sender.send_partition("s", 1, ROWS)


def test_chunk_that_comes_while_another_is_unanswered_is_sent_at_once(
    make_transport: MakeTransport, peer: PatientServer
) -> None:
    sender = make_transport(streams_per_peer=1)
    start(sender, peer, 1)
    assert peer.next()[1].sequence == 0
    sender.send_partition("s", 1, ROWS)
    assert peer.next()[1].sequence == 1, "before any answer"


def test_no_more_than_two_chunks_of_a_stream_are_unanswered(make_transport: MakeTransport, peer: PatientServer) -> None:
    sender = make_transport(streams_per_peer=1)
    start(sender, peer, 4)
    assert [peer.next()[1].sequence for _ in range(2)] == [0, 1]
    with pytest.raises(queue.Empty):
        peer.arrived.get(timeout=0.2)
    peer.answer()
    assert peer.next()[1].sequence == 2


def test_streams_open_as_chunks_queue_up_and_close_when_idle(
    make_transport: MakeTransport, peer: PatientServer
) -> None:
    sender = make_transport(streams_per_peer=2)
    start(sender, peer, 1)
    assert peer.next()[0] == 0
    for _ in range(5):
        sender.send_partition("s", 1, ROWS)
    streams = [peer.next()[0] for _ in range(3)]
    assert sorted(streams) == [0, 1, 1], "two unanswered chunks on each"
    with pytest.raises(queue.Empty):
        peer.arrived.get(timeout=0.2)
    peer.answer_all()
    assert {peer.ended.get(timeout=WAIT_S) for _ in range(2)} == {0, 1}


def test_manifest_is_sent_when_every_chunk_of_every_stream_is_answered(
    make_transport: MakeTransport, peer: PatientServer
) -> None:
    sender = make_transport(streams_per_peer=3)
    start(sender, peer, 6)
    sender.finish_shuffle("s")
    came = [peer.next()[1] for _ in range(6)]
    assert {header.kind for header in came} == {wire.CHUNK}
    peer.answer(5)
    with pytest.raises(queue.Empty):
        peer.arrived.get(timeout=0.2)
    peer.answer()
    assert peer.next()[1].kind == wire.MANIFEST
    peer.answer()
    sender.end_shuffle("s")


@pytest.mark.parametrize("streams", [1, 4])
def test_stopped_peer_holds_up_only_what_goes_to_it(make_transport: MakeTransport, streams: int) -> None:
    stopped, healthy = make_transport(open_wait_s=10.0), make_transport(open_wait_s=10.0)
    sender = make_transport(streams_per_peer=streams)
    with FaultyProxy(stopped.address) as proxy:
        proxy.stall()
        sender.start_shuffle("s", 3, [sender.address, proxy.address, healthy.address])
        stopped.start_shuffle("s", 3, [sender.address, stopped.address, healthy.address])
        healthy.start_shuffle("s", 3, [sender.address, stopped.address, healthy.address])
        for _ in range(20):
            for partition in range(3):
                sender.send_partition("s", partition, ROWS)
        deadline = time.monotonic() + WAIT_S
        while healthy.stats()["chunks_received"] < 20:
            assert time.monotonic() < deadline
        assert sender.stats()["stored_chunks"] == 20
        assert stopped.stats()["chunks_received"] == 0
        proxy.flow()
        sender.finish_shuffle("s", timeout_s=WAIT_S)
    assert stopped.stats()["chunks_received"] == 20


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_rows_arrive_as_they_were_and_in_fewer_bytes(
    make_transport: MakeTransport, compression: str
) -> None:
    receiver, sender = make_transport(), make_transport(compression=compression)
    rows = pa.record_batch(
        {"a": pa.array([7] * 100_000, pa.int64()), "b": [None if i % 3 else "x" for i in range(100_000)]}
    )
    with FaultyProxy(receiver.address) as proxy:
        sender.start_shuffle("s", 2, [sender.address, proxy.address])
        receiver.start_shuffle("s", 2, [sender.address, receiver.address])
        receiver.finish_shuffle("s")
        sender.send_partition("s", 1, rows)
        sender.finish_shuffle("s", timeout_s=WAIT_S)
        assert receiver.receive_partition("s", 1).read_all().to_batches() == [rows]
        assert proxy.bytes_to_target < rows.nbytes / 4


def test_unknown_compression_is_refused(make_transport: MakeTransport) -> None:
    with pytest.raises(UsageError, match='"gzip"; it must be none, lz4 or zstd'):
        make_transport(compression="gzip")


def test_value_above_two_gib_is_refused_by_its_column(make_transport: MakeTransport) -> None:
    sender = make_transport()
    size = (2 << 30) + 1
    zeros = mmap.mmap(-1, size)  # never written, so it takes no memory
    offsets = pa.py_buffer((0).to_bytes(8, "little") + size.to_bytes(8, "little"))
    blob = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(zeros)])
    sender.start_shuffle("s", 2, [sender.address, "127.0.0.1:1"])
    with pytest.raises(LimitReached, match=r'2147483657 of them in column "blob".*at most 2113929216'):
        sender.send_partition("s", 1, pa.record_batch({"id": [1], "blob": blob}))
