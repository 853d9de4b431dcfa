"""One of two agents of test_spill_processes: eight threads send ten times its memory, then it reads what it owns.

It speaks lines of JSON with the test, so that both take each step together.
"""

from __future__ import annotations

import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sabot.native._native import Ledger
from sabot.shuffle import ShuffleTransport
from sabot.shuffle.partitioning import HashPartitioning
from sabot.slots import TaskSlotManager
from tests.shuffle.spilling import MiB

SENDERS = 8
PARTITIONS = 16
BATCH_ROWS = 16_000
NOISE_BYTES = 120
SCHEMA = pa.schema([("key", pa.int64()), ("noise", pa.binary(NOISE_BYTES))])


def rows_of(number: int, noise: pa.Buffer) -> pa.RecordBatch:
    """Two megabytes of rows whose keys tell which they are."""
    first = number * BATCH_ROWS
    start = number * 4096 % (noise.size - BATCH_ROWS * NOISE_BYTES)
    taken = noise.slice(start, BATCH_ROWS * NOISE_BYTES)
    values = pa.FixedSizeBinaryArray.from_buffers(SCHEMA.field("noise").type, BATCH_ROWS, [None, taken])
    return pa.record_batch([pa.array(range(first, first + BATCH_ROWS), pa.int64()), values], schema=SCHEMA)


def told() -> object:
    return json.loads(sys.stdin.readline())


def tell(what: object) -> None:
    print(json.dumps(what), flush=True)


def peak_resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def send(transport: ShuffleTransport, task: int, batches: range, noise: pa.Buffer) -> int:
    writer = transport.attempt_writer("s", task=task, attempt=0, partitioning=HashPartitioning(("key",)))
    for number in batches:
        writer.write([rows_of(number, noise)])
    return writer.finish(timeout_s=120).rows


def read(transport: ShuffleTransport, partition: int) -> tuple[int, int]:
    """Rows, and the sum of their keys."""
    opened = transport.server.open_partition(
        "s", partition, attempts=[(task, 0) for task in range(2 * SENDERS)], loaded_bytes_max=4 * MiB
    )
    keys = 0
    for piece in opened.pieces(60.0):
        keys += sum(pc.sum(batch["key"]).as_py() for batch in piece)
    return opened.rows, keys


def main(me: int, memory: int, batches: int, folder: Path) -> None:
    slots = TaskSlotManager(num_slots=1)
    ledger = Ledger(memory)
    pa.set_memory_pool(ledger.pool)
    noise = pa.py_buffer(random.Random(me).randbytes(8 * MiB))
    with ShuffleTransport(
        slot_pool=slots.native_pool, ledger=ledger, spill_dirs=[str(folder)], streams_per_peer=8, stream_timeout_s=60.0
    ) as transport:
        tell(transport.address)
        agents = [str(address) for address in told()]  # type: ignore[attr-defined]
        transport.open_shuffle("s", num_partitions=PARTITIONS, owners=agents, schema=SCHEMA)
        tell("open")
        told()
        with ThreadPoolExecutor(SENDERS) as senders:
            first = me * batches
            sent = [
                senders.submit(send, transport, me * SENDERS + i, range(first + i, first + batches, SENDERS), noise)
                for i in range(SENDERS)
            ]
            tell(sum(each.result() for each in sent))
        told()
        found = [read(transport, partition) for partition in range(me, PARTITIONS, len(agents))]
        spilled = transport.stats()["spilled_bytes_total"]
        tell([sum(rows for rows, _ in found), sum(keys for _, keys in found), spilled, peak_resident_bytes()])
        told()
    slots.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
