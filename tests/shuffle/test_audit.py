"""What is wrong on the wire is caught and named; each guard, switched off, lets its wrong answer through."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from sabot.errors import LimitReached, PeerLost, ShuffleIntegrityError
from sabot.native import _native
from sabot.shuffle import ShuffleServer
from tests.shuffle import wire

MakeServer = Callable[..., ShuffleServer]
ROWS = pa.record_batch({"key": [1, 2, 3], "value": ["a", "b", "c"]})
OTHER = pa.record_batch({"key": [1, 2, 3], "value": ["a", "b", "x"]})


def opened(make_server: MakeServer, **options: object) -> ShuffleServer:
    server = make_server(**options)
    server.start_shuffle("s", 2, [server.address], senders=0, schema=ROWS.schema)
    return server


def put(server: ShuffleServer, *messages: tuple[wire.Header | bytes, pa.RecordBatch | None]) -> list[wire.Ack]:
    return wire.put(server.address, list(messages), ROWS.schema)


def read(server: ShuffleServer, partition: int = 0, attempts: tuple[tuple[int, int], ...] = ((0, 0),)) -> pa.Table:
    return server.read_partition("s", partition, attempts=attempts).table


def test_right_chunk_and_manifest_are_confirmed_and_read(make_server: MakeServer) -> None:
    server = opened(make_server)
    header = wire.chunk("s", ROWS)
    acks = put(server, (header, ROWS), (wire.manifest([header]), None))
    assert [ack.code for ack in acks] == [0, 0]
    assert read(server) == pa.table(ROWS)


def test_changed_rows_are_refused_and_named(make_server: MakeServer) -> None:
    (ack,) = put(opened(make_server), (wire.chunk("s", ROWS, task=5), OTHER))
    assert ack.code == wire.INTEGRITY
    assert "checksum" in ack.message
    assert "task=5" in ack.message


def test_without_checksums_and_content_sums_changed_rows_would_be_read(make_server: MakeServer) -> None:
    server = opened(make_server, verify_checksums=False)
    header = wire.chunk("s", ROWS)  # the sum covers the key column only, as task 0 binds column 0
    assert [ack.code for ack in put(server, (header, OTHER), (wire.manifest([header]), None))] == [0, 0]
    assert read(server) == pa.table(OTHER)


def test_content_sum_catches_what_the_checksum_let_through(make_server: MakeServer) -> None:
    server = opened(make_server, verify_checksums=False)
    header = wire.chunk("s", ROWS, task=1)  # task 1 binds the changed column
    put(server, (header, OTHER), (wire.manifest([header]), None))
    with pytest.raises(ShuffleIntegrityError, match="content sums differ") as caught:
        read(server, attempts=((1, 0),))
    assert caught.value.facts == {"shuffle": "s", "partition": 0, "agent": server.address}


def test_repeated_chunk_is_dropped(make_server: MakeServer) -> None:
    server = opened(make_server)
    header = wire.chunk("s", ROWS)
    acks = put(server, (header, ROWS), (header, ROWS), (wire.manifest([header]), None))
    assert [ack.repeated for ack in acks] == [False, True, False]
    assert read(server).num_rows == 3


def test_without_dedupe_the_manifest_catches_a_repeated_chunk(make_server: MakeServer) -> None:
    header = wire.chunk("s", ROWS)
    acks = put(opened(make_server, dedupe=False), (header, ROWS), (header, ROWS), (wire.manifest([header]), None))
    assert acks[-1].code == wire.INTEGRITY


def test_without_dedupe_and_manifest_checks_the_reader_catches_a_repeated_chunk(make_server: MakeServer) -> None:
    server = opened(make_server, dedupe=False, check_manifests=False)
    header = wire.chunk("s", ROWS)
    put(server, (header, ROWS), (header, ROWS), (wire.manifest([header]), None))
    with pytest.raises(ShuffleIntegrityError, match="6 rows where its senders sent 3"):
        read(server)


def test_two_chunks_under_one_sequence_are_refused(make_server: MakeServer) -> None:
    acks = put(opened(make_server), (wire.chunk("s", ROWS), ROWS), (wire.chunk("s", OTHER), OTHER))
    assert [ack.code for ack in acks] == [0, wire.INTEGRITY]


def test_missing_chunk_is_missing_not_corrupt(make_server: MakeServer) -> None:
    first, second = wire.chunk("s", ROWS), wire.chunk("s", ROWS, sequence=1)
    acks = put(opened(make_server), (first, ROWS), (wire.manifest([first, second]), None))
    assert acks[-1].code == wire.PEER_LOST
    assert "1 of 2 chunks are missing" in acks[-1].message


def test_without_manifest_checks_the_reader_catches_a_missing_chunk(make_server: MakeServer) -> None:
    server = opened(make_server, check_manifests=False)
    first, second = wire.chunk("s", ROWS), wire.chunk("s", ROWS, sequence=1)
    put(server, (first, ROWS), (wire.manifest([first, second]), None))
    with pytest.raises(ShuffleIntegrityError, match="3 rows where its senders sent 6"):
        read(server)


@pytest.mark.parametrize(
    "changes",
    [
        {"extents": ((0, 3, 1),)},
        {"extents": ((0, 4, 0),)},
        {"extents": ((1, 3, 0),)},
        {"checksum": 1},
        {"extents": ()},
    ],
)
def test_manifest_that_does_not_fit_its_chunks_is_refused(make_server: MakeServer, changes: dict[str, object]) -> None:
    header = wire.chunk("s", ROWS)
    acks = put(opened(make_server), (header, ROWS), (wire.manifest([header], **changes), None))
    assert acks[-1].code == wire.INTEGRITY


def test_row_doubled_while_another_of_its_key_is_lost_is_caught(make_server: MakeServer) -> None:
    honest = pa.record_batch({"key": [1, 1], "value": ["a", "b"]})
    torn = pa.record_batch({"key": [1, 1], "value": ["a", "a"]})
    server = opened(make_server)
    promised = _native.content_sum(honest, ["key"], 1)
    partition = _native.partition_of(_native.hash_keys(honest, ["key"]), 2)[0].as_py()
    header = wire.chunk("s", torn, task=1, by_hash=True, keys=(0,), extents=((partition, 2, promised),))
    put(server, (header, torn), (wire.manifest([header], keys=(0,), by_hash=True), None))
    with pytest.raises(ShuffleIntegrityError, match="content sums differ"):
        read(server, partition, ((1, 0),))


def test_row_in_the_wrong_partition_is_caught(make_server: MakeServer) -> None:
    one = pa.record_batch({"key": [1], "value": ["a"]})
    right = _native.partition_of(_native.hash_keys(one, ["key"]), 2)[0].as_py()
    server = opened(make_server)
    content_sum = _native.content_sum(one, ["key"], 0)
    header = wire.chunk("s", one, by_hash=True, keys=(0,), extents=((1 - right, 1, content_sum),))
    put(server, (header, one), (wire.manifest([header], keys=(0,), by_hash=True), None))
    with pytest.raises(ShuffleIntegrityError, match="belongs to another partition"):
        read(server, 1 - right)


def test_attempt_that_was_not_asked_for_is_never_read(make_server: MakeServer) -> None:
    server = opened(make_server)
    first, second = wire.chunk("s", ROWS), wire.chunk("s", OTHER, attempt=1)
    put(server, (first, ROWS), (wire.manifest([first]), None), (second, OTHER), (wire.manifest([second]), None))
    assert read(server, attempts=((0, 1),)) == pa.table(OTHER)


def test_stream_that_ends_without_a_manifest_ends_nothing(make_server: MakeServer) -> None:
    server = opened(make_server)
    put(server, (wire.chunk("s", ROWS), ROWS))
    with pytest.raises(PeerLost, match="manifest of one of its attempts has not come") as caught:
        read(server)
    assert caught.value.facts["task"] == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"shuffle_id": "unknown"}, "not known to this agent"),
        ({"extents": ((9, 3, 0),)}, "beyond the shuffle's 2"),
        ({"extents": ((0, 2, 0),)}, "3 rows where its header says 2"),
    ],
)
def test_chunk_that_does_not_belong_is_refused(
    make_server: MakeServer, changes: dict[str, object], expected: str
) -> None:
    header = wire.chunk(**{"shuffle_id": "s", "batch": ROWS, **changes})  # type: ignore[arg-type]
    (ack,) = put(opened(make_server), (header, ROWS))
    assert ack.code in (wire.PEER_REFUSED, wire.INTEGRITY)
    assert expected in ack.message


def test_chunk_for_an_ended_shuffle_is_refused_at_once(make_server: MakeServer) -> None:
    server = opened(make_server, open_wait_s=60.0)
    server.end_shuffle("s")
    (ack,) = put(server, (wire.chunk("s", ROWS), ROWS))
    assert (ack.code, "has ended" in ack.message) == (wire.PEER_REFUSED, True)


def test_another_incarnation_cannot_go_on_with_an_attempt(make_server: MakeServer) -> None:
    first = wire.chunk("s", ROWS, incarnation=1)
    acks = put(opened(make_server), (first, ROWS), (wire.chunk("s", ROWS, incarnation=2, sequence=1), ROWS))
    assert [ack.code for ack in acks] == [0, wire.PEER_REFUSED]


def test_chunk_after_its_manifest_is_refused(make_server: MakeServer) -> None:
    header = wire.chunk("s", ROWS)
    acks = put(
        opened(make_server), (header, ROWS), (wire.manifest([header]), None), (wire.chunk("s", ROWS, sequence=1), ROWS)
    )
    assert [ack.code for ack in acks] == [0, 0, wire.PEER_REFUSED]


def test_chunk_of_another_owner_is_refused(make_server: MakeServer) -> None:
    server = make_server()
    server.start_shuffle("s", 2, [server.address, "127.0.0.1:1"], senders=0, schema=ROWS.schema)
    (ack,) = put(server, (wire.chunk("s", ROWS, partition=1), ROWS))
    assert (ack.code, "does not own" in ack.message) == (wire.PEER_REFUSED, True)


def test_senders_of_a_transport_shuffle_must_all_finish(make_server: MakeServer) -> None:
    server = make_server()
    server.start_shuffle("s", 2, [server.address, "127.0.0.1:1"])
    header = wire.chunk("s", ROWS)
    put(server, (header, ROWS), (wire.manifest([header]), None))
    with pytest.raises(LimitReached):
        server.receive_partition("s", 0, timeout_s=0.05)
    late = wire.chunk("s", ROWS, task=1)
    put(server, (late, ROWS), (wire.manifest([late]), None))
    assert server.receive_partition("s", 0).read_all().num_rows == 6
