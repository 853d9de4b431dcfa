"""What the tests of spilling share: rows that do not compress, servers with little memory, what lies in a folder."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from sabot.native._native import Ledger
from sabot.shuffle import ShuffleTransport
from sabot.shuffle.partitioning import HashPartitioning

MiB = 1 << 20
PARTITIONS = 8
SCHEMA = pa.schema([("key", pa.int64()), ("noise", pa.binary(120)), ("text", pa.string())])
IDLE_S = 30.0


def noisy_rows(first: int, count: int, rng: random.Random) -> pa.RecordBatch:
    """Rows of about 150 bytes, which tell by key and text which they are."""
    noise = rng.randbytes(120 * count)
    return pa.record_batch(
        [
            pa.array(range(first, first + count), pa.int64()),
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(120), count, [None, pa.py_buffer(noise)]),
            pa.array([f"row {first + i}" if i % 5 else None for i in range(count)]),
        ],
        schema=SCHEMA,
    )


@contextmanager
def small_transport(folders: Iterable[Path], *, memory: int = 16 * MiB, **options: Any) -> Iterator[ShuffleTransport]:
    """A transport whose memory is `memory` bytes and that spills into `folders`."""
    with ShuffleTransport(
        ledger=Ledger(memory), spill_dirs=[str(folder) for folder in folders], open_wait_s=0.2, **options
    ) as transport:
        yield transport


def fill(transport: ShuffleTransport, shuffle_id: str, batches: int, rng: random.Random) -> pa.Table:
    """Opens a shuffle and writes some 3 MB a batch into it, each in memory or on disk before the next; all the rows."""
    transport.open_shuffle(shuffle_id, num_partitions=PARTITIONS, owners=[transport.address], schema=SCHEMA)
    writer = transport.attempt_writer(shuffle_id, task=0, attempt=0, partitioning=HashPartitioning(("key",)))
    written = []
    for number in range(batches):
        written.append(noisy_rows(number * 20_000, 20_000, rng))
        writer.write([written[-1]])
        assert transport.server.native.wait_spilled(IDLE_S)
    writer.finish(timeout_s=10)
    return pa.Table.from_batches(written)


def read_all(transport: ShuffleTransport, shuffle_id: str, *, loaded_bytes_max: int = 1 * MiB) -> pa.Table:
    """Every partition, piece by piece, in the order of the keys; copied out of the transport's memory."""
    pieces: list[pa.Table] = []
    for partition in range(PARTITIONS):
        opened = transport.server.open_partition(
            shuffle_id, partition, attempts=[(0, 0)], loaded_bytes_max=loaded_bytes_max
        )
        pieces.extend(pa.Table.from_batches(piece).sort_by("key") for piece in opened.pieces(30.0))
    return pa.concat_tables(pieces).sort_by("key").combine_chunks()


def files_in(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
