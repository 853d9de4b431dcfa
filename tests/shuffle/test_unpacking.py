"""Compressed rows from a stranger: what they unpack into is bounded before Flight unpacks them."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from pyarrow import flight

from sabot.native._native import Ledger
from sabot.shuffle import ShuffleServer
from tests.shuffle import wire

MakeServer = Callable[..., ShuffleServer]
MIB = 1 << 20
PUBLISH = ("sabot", "publish", "zeros", "0")
ZEROS = pa.record_batch({"v": pa.array([0] * (3 * MIB), pa.int64())})  # 24 MiB, a few KiB on the wire
CODED = pa.record_batch({"v": ZEROS.column(0).slice(0, 2 * MIB).dictionary_encode(), "w": ZEROS.column(0)[: 2 * MIB]})


def put_compressed(
    server: ShuffleServer, batch: pa.RecordBatch, codec: str | None, path: tuple[str, ...] = PUBLISH
) -> bytes:
    options = flight.FlightCallOptions(write_options=pa.ipc.IpcWriteOptions(compression=codec))
    with flight.connect(f"grpc://{server.address}") as client:
        writer, reader = client.do_put(flight.FlightDescriptor.for_path(*path), batch.schema, options=options)
        writer.write_batch(batch)
        writer.write_metadata(wire.end_message(batch.num_rows))
        writer.done_writing()
        answer = reader.read()
        writer.close()
    return b"" if answer is None else bytes(answer.to_pybytes())


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("batch", [ZEROS, CODED], ids=["plain", "dictionary"])
@pytest.mark.parametrize("path", [PUBLISH, ("sabot", "chunks", "stranger")], ids=lambda path: path[1])
def test_rows_that_unpack_beyond_their_bound_are_refused(
    make_server: MakeServer, codec: str, batch: pa.RecordBatch, path: tuple[str, ...]
) -> None:
    server = make_server(ledger=Ledger(64 * MIB))
    with pytest.raises(pa.ArrowException, match=r"would unpack into \d+ bytes"):
        put_compressed(server, batch, codec, path)


def test_without_a_limit_of_memory_there_is_none_of_unpacking(make_server: MakeServer) -> None:
    assert put_compressed(make_server(ledger=Ledger()), ZEROS, "zstd").startswith(b"SBTR")


@pytest.mark.parametrize("codec", ["zstd", "lz4", None])
def test_rows_within_the_bound_come_whole_compressed_or_not(make_server: MakeServer, codec: str | None) -> None:
    server = make_server(ledger=Ledger(64 * MIB))
    small = ZEROS.slice(0, 100_000)
    put_compressed(server, small, codec)
    assert server.native.published_names()[0][0] == "zeros"


def test_rows_that_are_not_compressed_may_be_larger(make_server: MakeServer) -> None:
    assert put_compressed(make_server(ledger=Ledger(128 * MIB)), ZEROS, None).startswith(b"SBTR")
