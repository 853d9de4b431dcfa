"""A job whose rows fit neither in memory nor on disk: a typed error that names the folder, and agents as before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sabot import LocalCluster
from sabot.client.session import Session
from sabot.errors import LimitReached

MiB = 1 << 20
MEMORY = 128 * MiB
DISK = 32 * MiB
FILES, ROWS, NOISE = 8, 50_000, 800  # 320 MB, which nothing compresses


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for index in range(FILES):
        noise = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(NOISE), ROWS, [None, pa.py_buffer(os.urandom(ROWS * NOISE))]
        )
        keys = pa.array(range(index * ROWS, (index + 1) * ROWS), pa.int64())
        pq.write_table(pa.table({"k": keys, "noise": noise}), folder / f"{index}.parquet", row_group_size=5_000)
    return folder


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        environment.setenv("SABOT_SPILL_DIRS", str(tmp_path))
        environment.setenv("SABOT_SPILL_BYTES_MAX", str(DISK))
        cluster = stack.enter_context(LocalCluster(agents=2, slots=1, memory_bytes_max=MEMORY))
        yield stack.enter_context(cluster.connect(progress=False))


def test_full_disk_fails_the_job_by_name_and_the_agents_do_the_next_one(
    session: Session, rows: Path, tmp_path: Path
) -> None:
    data = session.read_parquet(str(rows / "*.parquet"))
    with pytest.raises(LimitReached) as raised:
        data.repartition("k").run()
    assert str(tmp_path) in str(raised.value) and "spill.bytes_max" in str(raised.value)
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.stat().st_size]
    small = data.filter(pc.field("k") < 1000).select(["k"]).repartition("k")
    assert sorted(small.to_table()["k"].to_pylist()) == list(range(1000))
