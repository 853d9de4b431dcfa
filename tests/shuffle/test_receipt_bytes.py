"""Bytes of each partition: the same at the sender and at the reader, whatever chunks, disks and wires lay between."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from sabot.native._native import row_bytes
from sabot.shuffle import ShuffleTransport
from sabot.shuffle.partitioning import (
    BroadcastPartitioning,
    HashPartitioning,
    Partitioning,
    RoundRobinPartitioning,
)
from sabot.shuffle.share_reader import read_share
from tests.shuffle.spilling import MiB, noisy_rows, small_transport

PARTITIONS = 4
ROWS = 3000
TABLE = pa.table(
    {
        "k": pa.array([i * 7919 % 211 for i in range(ROWS)], pa.int64()),
        "text": [None if i % 7 == 0 else "x" * (i % 23) for i in range(ROWS)],
        "list": [list(range(i % 4)) if i % 5 else None for i in range(ROWS)],
        "flag": [i % 3 == 0 for i in range(ROWS)],
    }
).combine_chunks()
SCHEMA = TABLE.schema


def bytes_of(table: pa.Table) -> int:
    return sum(row_bytes(batch) for batch in table.to_batches())


def opened(count: int, chunk_bytes_max: int) -> list[ShuffleTransport]:
    transports = [ShuffleTransport(chunk_bytes_max=chunk_bytes_max) for _ in range(count)]
    addresses = [transport.address for transport in transports]
    for transport in transports:
        transport.open_shuffle("j/0", num_partitions=PARTITIONS, owners=addresses, schema=SCHEMA)
    return transports


@pytest.mark.parametrize(
    "partitioning", [HashPartitioning(("k",)), RoundRobinPartitioning(), BroadcastPartitioning(("k",))]
)
@pytest.mark.parametrize("chunk_bytes_max", [1 << 12, 4 << 20])
def test_sender_and_reader_count_the_same_bytes(partitioning: Partitioning, chunk_bytes_max: int) -> None:
    transports = opened(2, chunk_bytes_max)
    try:
        writer = transports[0].attempt_writer("j/0", task=0, attempt=0, partitioning=partitioning)
        for start in range(0, ROWS, 1000):
            writer.write(TABLE.slice(start, 1000).to_batches(max_chunksize=300))
        sent = {part.partition: part for part in writer.finish(timeout_s=30).sums}
        assert len(sent) == PARTITIONS
        for partition, part in sent.items():
            read = transports[partition % 2].read_partition("j/0", partition, attempts=[(0, 0)])
            pulled = read_share(
                transports[1 - partition % 2], "j/0", partition, attempts=[0], share=(0, 1), keys=partitioning.keys
            )
            assert read.num_bytes == pulled.num_bytes == part.num_bytes == bytes_of(read.table) > 0
        copies = PARTITIONS if isinstance(partitioning, BroadcastPartitioning) else 1
        assert sum(part.num_bytes for part in sent.values()) == copies * bytes_of(TABLE)
    finally:
        for transport in transports:
            transport.close()


def test_rows_that_were_on_disk_have_as_many_bytes(tmp_path: Path) -> None:
    with small_transport([tmp_path]) as transport:
        rows = [noisy_rows(first, 20_000, random.Random(first)) for first in range(0, 160_000, 20_000)]
        transport.open_shuffle("j/0", num_partitions=8, owners=[transport.address], schema=rows[0].schema)
        writer = transport.attempt_writer("j/0", task=0, attempt=0, partitioning=HashPartitioning(("key",)))
        for batch in rows:
            writer.write([batch])
            assert transport.server.native.wait_spilled(30)
        sent = writer.finish(timeout_s=30).sums
        assert transport.stats()["spilled_bytes_total"] > MiB
        for part in sent:
            opened = transport.server.open_partition("j/0", part.partition, attempts=[(0, 0)], loaded_bytes_max=MiB)
            read = sum(row_bytes(batch) for piece in opened.pieces(30) for batch in piece)
            assert opened.num_bytes == part.num_bytes == read
        assert sum(part.num_bytes for part in sent) == sum(map(row_bytes, rows))
