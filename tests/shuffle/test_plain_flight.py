"""The agent's Flight server with plain `pyarrow.flight` clients, and its client with plain servers."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import flight

from sabot.errors import PeerLost, PeerRefused
from sabot.native import _native
from sabot.shuffle import ShuffleClient, ShuffleServer
from tests.shuffle import wire

MakeServer = Callable[..., ShuffleServer]
PUBLISH = ("sabot", "publish", "numbers", "0")


def test_plain_client_publishes_and_reads_back(make_server: MakeServer, rows: pa.RecordBatch) -> None:
    server = make_server()
    assert wire.put_plain(server.address, PUBLISH, [rows, rows], announced=200) == 200
    table, marks = wire.get(server.address, _native.ticket_of("numbers", 0))
    assert table.combine_chunks() == pa.concat_tables([pa.table(rows)] * 2).combine_chunks()
    assert marks[-1] == (1, len(marks) - 1, 200)


def test_plain_client_without_its_end_message_publishes_nothing(make_server: MakeServer, rows: pa.RecordBatch) -> None:
    server = make_server()
    with pytest.raises(pa.ArrowException, match="ended without its last message"):
        wire.put_plain(server.address, PUBLISH, [rows], announced=None)
    assert server.native.published_names() == []


def test_plain_client_that_announces_other_rows_publishes_nothing(
    make_server: MakeServer, rows: pa.RecordBatch
) -> None:
    server = make_server()
    with pytest.raises(pa.ArrowException, match="announced 99 rows, but 100 came"):
        wire.put_plain(server.address, PUBLISH, [rows], announced=99)
    assert server.native.published_names() == []


def test_plain_client_writes_into_a_shuffle_and_reads_its_partition(
    make_server: MakeServer, rows: pa.RecordBatch
) -> None:
    server = make_server()
    server.start_shuffle("s", 1, [server.address])
    assert wire.put_plain(server.address, ("sabot", "shuffle", "s", "0"), [rows], announced=100) == 100
    empty = wire.Header(shuffle_id="s", kind=wire.MANIFEST)
    assert [ack.code for ack in wire.put(server.address, [(empty, None)], rows.schema)] == [0]
    table, marks = wire.get(server.address, _native.ticket_of("s", 0, shuffle=True))
    assert table == pa.table(rows)
    assert marks[-1][2] == 100


def test_incomplete_partition_is_not_served(make_server: MakeServer) -> None:
    server = make_server()
    server.start_shuffle("s", 1, [server.address])
    with pytest.raises(flight.FlightError, match="not every sender has finished"):
        wire.get(server.address, _native.ticket_of("s", 0, shuffle=True))


def test_dictionaries_and_nested_columns_survive_a_pull(make_server: MakeServer) -> None:
    server = make_server()
    batch = pa.record_batch(
        {
            "coded": pa.array(["a", "b", "a", None]).dictionary_encode(),
            "nested": pa.array([[1], [], None, [2, 3]]),
            "pair": pa.array([{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}, {"x": 4, "y": None}]),
        }
    )
    server.register_partition("r", 0, batch)
    with ShuffleClient() as client:
        assert client.fetch_partition(server.address, "r", 0).read_all() == pa.table(batch)


@pytest.mark.parametrize(
    "path", [("else",), ("sabot",), ("sabot", "chunk"), ("sabot", "publish", "x"), ("sabot", "publish", "x", "-1")]
)
def test_wrong_descriptor_is_answered_with_the_right_ones(
    make_server: MakeServer, rows: pa.RecordBatch, path: tuple[str, ...]
) -> None:
    with pytest.raises(pa.ArrowException, match=r"descriptor path|whole number"):
        wire.put_plain(make_server().address, path, [rows], announced=100)


def test_wrong_ticket_is_answered_with_the_right_ones(make_server: MakeServer) -> None:
    with pytest.raises(pa.ArrowException, match="sabot:1:published"):
        wire.get(make_server().address, "everything")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def mutilate_and_put(data: st.DataObject, *, address: str) -> None:
    batch = pa.record_batch({"v": [1, 2, 3]})
    good = bytearray(wire.chunk("s", batch).encode())
    cut = data.draw(st.integers(0, len(good) - 1))
    for position in data.draw(st.lists(st.integers(0, len(good) - 1), max_size=4)):
        good[position] ^= data.draw(st.integers(1, 255))
    bad = bytes(good[:cut]) if data.draw(st.booleans()) else bytes(good) + data.draw(st.binary(min_size=1, max_size=8))
    try:
        acks = wire.put(address, [(bad, batch)], batch.schema)
    except pa.ArrowException as error:
        assert "[sabot:3]" in str(error)
    else:
        assert all(ack.code != 0 for ack in acks)


def test_mutilated_header_is_refused_by_type(make_server: MakeServer) -> None:
    server = make_server(open_wait_s=0.01)
    server.start_shuffle("s", 2, [server.address], senders=0)
    mutilate_and_put(address=server.address)


class OrdinaryServer(flight.FlightServerBase):
    """A Flight server of someone else's: its batches carry no marks."""

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.RecordBatchStream:
        return flight.RecordBatchStream(pa.table({"v": [1, 2]}))

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> list[flight.Result]:
        return [flight.Result(b"pong")]


def test_server_that_is_not_sabots_is_refused() -> None:
    with OrdinaryServer("grpc://127.0.0.1:0") as other, ShuffleClient() as client:
        address = f"127.0.0.1:{other.port}"
        with pytest.raises(PeerRefused, match="not Sabot's"):
            client.fetch_partition(address, "r", 0)
        with pytest.raises(PeerRefused, match="protocol version"):
            client.ping(address)


class BreakingServer(flight.FlightServerBase):
    """Ends a DoGet before its last mark."""

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        batch = pa.record_batch({"v": [1, 2]})
        content_sum = _native.content_sum(batch, [], 0)
        mark = b"SBTR" + bytes(4) + (0).to_bytes(8, "little") + (2).to_bytes(8, "little")
        return flight.GeneratorStream(batch.schema, iter([(batch, mark + content_sum.to_bytes(8, "little"))]))


def test_pull_that_breaks_off_is_not_taken_for_whole() -> None:
    with BreakingServer("grpc://127.0.0.1:0") as other, ShuffleClient() as client:
        with pytest.raises(PeerLost, match="broke off before the end"):
            client.fetch_partition(f"127.0.0.1:{other.port}", "r", 0)


def test_upload_is_held_once_while_it_is_published(make_server: MakeServer) -> None:
    ledger = _native.Ledger(64 << 20)
    server = make_server(ledger=ledger)
    batch = pa.record_batch({"v": pa.array(range(250_000), pa.int64())})  # 2 MB
    assert wire.put_plain(server.address, PUBLISH, [batch] * 10, announced=2_500_000) == 2_500_000
    assert ledger.snapshot()["peak"] < 30 << 20
