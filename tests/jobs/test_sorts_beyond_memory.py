"""A sort of ten times the memory that each agent has: rows lie on disk between its steps, and come in order."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sabot import LocalCluster

MIB = 1 << 20
MEMORY_BYTES = 128 * MIB  # of each of two agents; the rows have ten times as much
FILES = 20
FILE_ROWS = 200_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 320 bytes: a key in no order, and two texts that pack well in the files and not in memory."""
    folder = tmp_path_factory.mktemp("large")
    for number in range(FILES):
        rows = pa.array(range(number * FILE_ROWS, (number + 1) * FILE_ROWS), pa.int64())
        keys = pc.bit_wise_and(pc.multiply(rows, pa.scalar(2_654_435_761, pa.int64())), (1 << 32) - 1)
        text = pa.array(["x" * 300] * FILE_ROWS)
        pq.write_table(
            pa.table({"k": keys, "i": rows, "t": text}),
            folder / f"{number:02}.parquet",
            row_group_size=10_000,
            use_dictionary=False,
            compression="zstd",
        )
    return folder


def test_ten_times_the_memory_is_sorted_by_way_of_the_disk(files: Path) -> None:
    rows, last = 0, -1
    with LocalCluster(agents=2, slots=1, memory_bytes_max=MEMORY_BYTES) as cluster:
        with cluster.connect(progress=False) as session, session.read_parquet(str(files)).sort_by("k").run() as result:
            for batch in result.to_batches():
                keys = batch["k"]
                assert keys[0].as_py() >= last
                assert pc.all(pc.less_equal(keys.slice(0, len(keys) - 1), keys.slice(1))).as_py() is not False
                last, rows = keys[-1].as_py(), rows + len(keys)
            assert result.receipt.exact
    assert rows == FILES * FILE_ROWS
