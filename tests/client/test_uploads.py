"""Uploads reach a plain Flight server in the pieces and the form that docs/protocol.md describes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.client.flight import upload_piece
from sabot.client.uploads import Uploader, cut_pieces
from sabot.client.watchdog import Watchdog
from sabot.dataflow.stage import TablePiece
from sabot.errors import LimitReached, PeerLost, PeerRefused, ShuffleIntegrityError
from tests.client.plain_server import MARK, PlainServer

TABLE = pa.table({"k": pa.array(range(1000), pa.int64()), "s": pa.array([f"s{i % 7}" for i in range(1000)])})


@given(rows=st.integers(0, 50), slots=st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_pieces_hold_each_row_once_and_in_order(rows: int, slots: list[int]) -> None:
    addresses = {f"a{i}:1": count for i, count in enumerate(slots)}
    pieces = cut_pieces(rows, addresses)
    assert [piece.index for piece in pieces] == list(range(len(pieces)))
    assert [row for piece in pieces for row in range(piece.start, piece.stop)] == list(range(rows))
    assert 1 <= len(pieces) <= max(1, sum(slots))
    assert all(piece.flight_address in addresses for piece in pieces)


def test_one_piece_goes_to_every_slot() -> None:
    pieces = cut_pieces(100, {"a:1": 1, "b:1": 3})
    assert [piece.flight_address for piece in pieces] == ["a:1", "b:1", "b:1", "b:1"]


Upload = Callable[[dict[str, pa.Table], dict[str, int]], dict[str, tuple[TablePiece, ...]]]


@pytest.fixture
def upload(watchdog: Watchdog) -> Upload:
    return Uploader("job", watchdog, timeout_s=60).upload


def test_no_agent_that_takes_work_is_a_lost_peer() -> None:
    with pytest.raises(PeerLost, match="sabot-agent agents"):
        cut_pieces(10, {})


def test_a_table_arrives_whole_under_the_name_of_its_job(server: PlainServer, upload: Upload) -> None:
    uploads = upload({"t": TABLE}, {server.address: 3})
    paths = [("sabot", "publish", "job/upload/t", str(index)) for index in range(3)]
    assert list(server.uploads) == paths
    assert pa.concat_tables([server.uploads[path] for path in paths]) == TABLE
    assert [(piece.index, piece.flight_address) for piece in uploads["t"]] == [(i, server.address) for i in range(3)]
    assert sum(piece.rows for piece in uploads["t"]) == 1000


def test_an_empty_table_is_one_empty_piece_with_its_schema(server: PlainServer, upload: Upload) -> None:
    (piece,) = upload({"t": TABLE.slice(0, 0)}, {server.address: 2})["t"]
    assert piece.rows == 0
    assert server.uploads["sabot", "publish", "job/upload/t", "0"].schema == TABLE.schema


def test_dictionaries_are_decoded_on_the_wire(server: PlainServer, upload: Upload) -> None:
    table = pa.table({"d": pa.array(["x", None, "y", "x"]).dictionary_encode()})
    upload({"t": table}, {server.address: 1})
    sent = server.uploads["sabot", "publish", "job/upload/t", "0"]
    assert sent == pa.table({"d": ["x", None, "y", "x"]})


def test_a_large_batch_is_cut_into_messages_of_about_four_mebibytes(server: PlainServer) -> None:
    batch = pa.record_batch({"x": pa.array(range(2_000_000), pa.int64())})
    assert upload_piece(server.address, "n", 0, [batch], batch.schema, timeout_s=30) == 2_000_000
    assert len(server.batch_sizes) >= 4
    assert max(server.batch_sizes) <= 4 << 20
    assert server.uploads["sabot", "publish", "n", "0"].column("x").to_pylist() == list(range(2_000_000))


def test_fewer_rows_acknowledged_than_sent_is_an_integrity_error(server: PlainServer, upload: Upload) -> None:
    server.acknowledge = lambda rows, content_sum: MARK.pack(b"SBTR", 1, 0, rows - 1, content_sum)
    with pytest.raises(ShuffleIntegrityError, match=r"stored 999 rows .* of the 1000 rows"):
        upload({"t": TABLE}, {server.address: 1})


def test_other_contents_acknowledged_than_sent_are_an_integrity_error(server: PlainServer, upload: Upload) -> None:
    server.acknowledge = lambda rows, content_sum: MARK.pack(b"SBTR", 1, 0, rows, content_sum ^ 1)
    with pytest.raises(ShuffleIntegrityError, match=r"stored 1000 rows .* of the 1000 rows"):
        upload({"t": TABLE}, {server.address: 1})


def test_no_acknowledgement_is_a_lost_peer(server: PlainServer, upload: Upload) -> None:
    server.acknowledge = lambda rows, content_sum: None
    with pytest.raises(PeerLost, match="did not acknowledge"):
        upload({"t": TABLE}, {server.address: 1})


def test_an_acknowledgement_of_somebody_else_is_refused(server: PlainServer, upload: Upload) -> None:
    server.acknowledge = lambda rows, content_sum: MARK.pack(b"ELSE", 1, 0, rows, content_sum)
    with pytest.raises(PeerRefused, match="Flight port of an agent"):
        upload({"t": TABLE}, {server.address: 1})


def test_an_agent_that_is_gone_is_named(dead_address: str, upload: Upload) -> None:
    with pytest.raises(PeerLost, match=dead_address) as caught:
        upload({"t": TABLE}, {dead_address: 1})
    assert caught.value.facts["address"] == dead_address


def test_an_upload_that_the_agent_refuses_says_why(server: PlainServer, upload: Upload) -> None:
    server.refusal = "[sabot:5]the store is full (limit=7)[/sabot]"
    with pytest.raises(LimitReached, match=r"^the store is full \(limit=7\)$"):
        upload({"t": pa.concat_tables([TABLE] * 1000).combine_chunks()}, {server.address: 1})


def test_an_interrupted_upload_raises_the_interruption_and_stores_nothing(server: PlainServer) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield from TABLE.to_batches()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upload_piece(server.address, "n", 0, batches(), TABLE.schema, timeout_s=30)
    assert server.uploads == {}


def test_what_a_lost_agent_was_to_get_goes_to_another_one(
    server: PlainServer, dead_address: str, upload: Upload
) -> None:
    uploads = upload({"t": TABLE}, {dead_address: 1, server.address: 1})
    assert [piece.flight_address for piece in uploads["t"]] == [server.address] * 2
    assert pa.concat_tables(server.uploads["sabot", "publish", "job/upload/t", str(i)] for i in range(2)) == TABLE


def test_agent_that_freezes_is_given_up_when_it_answers_no_ping(
    server: PlainServer, silent_address: str, upload: Upload
) -> None:
    started_s = time.monotonic()
    uploads = upload({"t": TABLE}, {silent_address: 1, server.address: 1})
    assert time.monotonic() - started_s < 30, "a ping finds it, and not the upload's deadline"
    assert [piece.flight_address for piece in uploads["t"]] == [server.address] * 2
    with pytest.raises(PeerLost, match=f"{silent_address} has died or frozen"):
        upload({"t": TABLE}, {silent_address: 1})
