"""Streams that break on the way: what was not acknowledged is sent again, and what had arrived is dropped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from sabot.errors import PeerLost, SabotError
from sabot.shuffle import ShuffleTransport
from tests.shuffle.faulty_proxy import FaultyProxy

MakeTransport = Callable[..., ShuffleTransport]
CHUNKS = 12


@pytest.fixture
def receiver(make_transport: MakeTransport) -> ShuffleTransport:
    return make_transport(open_wait_s=10.0)


@pytest.fixture
def proxy(receiver: ShuffleTransport) -> Iterator[FaultyProxy]:
    with FaultyProxy(receiver.address) as proxy:
        yield proxy


def numbers(chunk: int) -> pa.RecordBatch:
    """1 MiB of numbers that are in no other chunk."""
    rows = 1024 * 1024 // 8
    return pa.record_batch({"a": pa.array(range(chunk * rows, (chunk + 1) * rows), pa.int64())})


def start(sender: ShuffleTransport, receiver: ShuffleTransport, proxy: FaultyProxy, name: str = "s") -> None:
    sender.start_shuffle(name, 2, [sender.address, proxy.address])
    receiver.start_shuffle(name, 2, [sender.address, receiver.address])
    receiver.finish_shuffle(name)


def received(receiver: ShuffleTransport) -> pa.Table:
    return receiver.receive_partition("s", 1).read_all()


def wait_until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not so():
        assert time.monotonic() < deadline


def all_numbers() -> pa.Table:
    return pa.Table.from_batches([numbers(chunk) for chunk in range(CHUNKS)])


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("bytes_until_cuts", [(0,), (50,), (1_000_000,), (3_000_000, 2_500_000), (4_000_000, 10, 10)])
def test_rows_arrive_once_over_streams_that_are_cut(
    make_transport: MakeTransport,
    receiver: ShuffleTransport,
    proxy: FaultyProxy,
    bytes_until_cuts: tuple[int, ...],
    streams: int,
) -> None:
    sender = make_transport(streams_per_peer=streams)
    proxy.cut_after(*bytes_until_cuts)
    start(sender, receiver, proxy)
    for chunk in range(CHUNKS):
        sender.send_partition("s", 1, numbers(chunk))
    sender.finish_shuffle("s", timeout_s=30)
    assert received(receiver).sort_by("a").equals(all_numbers())
    assert len(bytes_until_cuts) < proxy.connections <= len(bytes_until_cuts) + streams


def test_chunk_whose_acknowledgement_got_lost_is_sent_again_and_dropped(
    make_transport: MakeTransport, receiver: ShuffleTransport, proxy: FaultyProxy
) -> None:
    sender = make_transport(resume_s=20.0)
    start(sender, receiver, proxy)
    first, second = pa.record_batch({"a": [1, 2, 3]}), pa.record_batch({"a": [4, 5]})
    sender.send_partition("s", 1, first)
    wait_until(lambda: receiver.stats()["chunks_received"] == 1)
    proxy.swallow_answers()
    sender.send_partition("s", 1, second)
    wait_until(lambda: receiver.stats()["chunks_received"] == 2)
    proxy.cut()
    proxy.swallow_answers(False)
    sender.finish_shuffle("s", timeout_s=30)
    assert receiver.stats()["chunks_repeated"] in (1, 2), "the first one's acknowledgement may be lost too"
    assert received(receiver).to_batches() == [first, second]


def test_peer_that_stays_away_is_lost_after_the_time_it_is_given(
    make_transport: MakeTransport, receiver: ShuffleTransport, proxy: FaultyProxy
) -> None:
    sender = make_transport(resume_s=0.3)
    start(sender, receiver, proxy)
    sender.send_partition("s", 1, numbers(0))
    proxy.refuse()
    sender.send_partition("s", 1, numbers(1))
    begun = time.monotonic()
    with pytest.raises(PeerLost, match=proxy.address):
        sender.finish_shuffle("s", timeout_s=30)
    assert time.monotonic() - begun < 10


def test_peer_that_is_back_in_time_gets_the_rest(
    make_transport: MakeTransport, receiver: ShuffleTransport, proxy: FaultyProxy
) -> None:
    sender = make_transport(resume_s=20.0)
    proxy.refuse()
    start(sender, receiver, proxy)
    for chunk in range(CHUNKS):
        sender.send_partition("s", 1, numbers(chunk))
    sender.finish_shuffle("s")
    proxy.allow()
    assert received(receiver).sort_by("a").equals(all_numbers())


def test_what_a_peer_refuses_is_not_tried_again(
    make_transport: MakeTransport, receiver: ShuffleTransport, proxy: FaultyProxy
) -> None:
    sender = make_transport(resume_s=20.0, streams_per_peer=1)
    start(sender, receiver, proxy)
    receiver.end_shuffle("s")
    sender.send_partition("s", 1, numbers(0))
    begun = time.monotonic()
    with pytest.raises(SabotError, match="has ended"):
        sender.finish_shuffle("s", timeout_s=30)
    assert time.monotonic() - begun < 10
    assert proxy.connections == 1
