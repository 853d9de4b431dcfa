"""One process of test_many_rows: a transport that sends its share of the rows both ways and keeps what it gets.

It speaks lines of JSON with the test, so that all of them take each step together.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sabot.shuffle import ShuffleTransport
from sabot.shuffle.partitioning import HashPartitioning
from sabot.slots import TaskSlotManager

PARTITIONS = 16
BATCH_ROWS = 30_000


def rows_between(start: int, stop: int) -> pa.RecordBatch:
    """Rows that tell by every column which one they are."""
    number = pa.array(range(start, stop), pa.int64())
    return pa.record_batch(
        {
            "number": number,
            "text": pc.binary_join_element_wise("row", pc.cast(number, pa.string()), " "),
            "square": pc.multiply(pc.cast(number, pa.float64()), pc.cast(number, pa.float64())),
        }
    )


def told() -> object:
    return json.loads(sys.stdin.readline())


def tell(what: object) -> None:
    print(json.dumps(what), flush=True)


def keep(folder: Path, way: str, partition: int, table: pa.Table) -> None:
    with pa.OSFile(str(folder / f"{way}-{partition}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table)


def main(me: int, rows_each: int, folder: Path) -> None:
    slots = TaskSlotManager(num_slots=1)
    with ShuffleTransport(slot_pool=slots.native_pool) as transport:
        tell(transport.address)
        agents = [str(address) for address in told()]  # type: ignore[attr-defined]
        transport.start_shuffle("named", PARTITIONS, agents)
        transport.open_shuffle("hashed", num_partitions=PARTITIONS, owners=agents, schema=rows_between(0, 1).schema)
        writer = transport.attempt_writer(
            "hashed", task=me, attempt=0, partitioning=HashPartitioning(("number", "text"))
        )
        for start in range(me * rows_each, (me + 1) * rows_each, BATCH_ROWS):
            batch = rows_between(start, min(start + BATCH_ROWS, (me + 1) * rows_each))
            writer.write([batch])
            for partition in range(PARTITIONS):
                rows_of_it = pc.equal(pc.bit_wise_and(batch["number"], PARTITIONS - 1), partition)
                transport.send_partition("named", partition, batch.filter(rows_of_it))
        transport.finish_shuffle("named")
        tell(writer.finish(timeout_s=60).rows)
        attempts = [(int(task), int(attempt)) for task, attempt in told()]  # type: ignore[attr-defined]
        for partition in range(me, PARTITIONS, len(agents)):
            keep(folder, "hashed", partition, transport.read_partition("hashed", partition, attempts=attempts).table)
            keep(folder, "named", partition, transport.receive_partition("named", partition, 60.0).read_all())
        transport.end_shuffle("named")
        tell("read")
        told()
    slots.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
