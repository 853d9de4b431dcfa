"""Text files under a small limit: what is read of them is in memory that the agent counts, and a little at a time."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest

from sabot import LocalCluster
from sabot.agent.files.file_formats import FORMATS
from sabot.agent.files.line_ranges import lines_of_range
from sabot.dataflow.stage import FilePart, SourceFile
from tests.memory.test_agent_memory import accounts

MiB = 1 << 20
LIMIT = 64 * MiB
POOLS = {kind: pa.proxy_memory_pool(pa.default_memory_pool()) for kind in ("csv", "json")}  # they outlive their rows


@pytest.mark.parametrize("start", [0, 1000])
def test_lines_of_a_range_are_in_memory_that_is_counted(tmp_path: Path, start: int) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"0123456\n" * (MiB // 8))
    before = pa.total_allocated_bytes()
    with pa.OSFile(str(path)) as opened:
        begin, lines = lines_of_range(opened, start, MiB - 100)
    assert begin == start
    assert lines.to_pybytes() == path.read_bytes()[start : MiB - 96]
    assert pa.total_allocated_bytes() - before >= lines.size > MiB // 2
    del lines
    assert pa.total_allocated_bytes() == before


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_lines_are_counted_beside_the_rows_that_are_made_of_them(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lines"
    lines = b"1\n" * (2 * MiB) if kind == "csv" else b'{"a": 1}\n' * (MiB // 2)
    path.write_bytes(b"a\n" + lines if kind == "csv" else lines)
    size = path.stat().st_size
    file = SourceFile(path=str(path), size_bytes=size, modified_ns=0, cut_at_lines=True)
    part = FilePart(file=file, row_groups=None, rows=None, byte_range=(0, size))
    own = pa.default_memory_pool()
    pa.set_memory_pool(POOLS[kind])
    try:
        with pa.OSFile(str(path)) as opened:
            table = FORMATS[kind].read(opened, part, {}, pa.schema([("a", pa.int64())]))
    finally:
        pa.set_memory_pool(own)
    assert POOLS[kind].max_memory() >= size - 2 + table.nbytes
    assert table.num_rows == lines.count(b"\n")


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_text_files_of_four_times_the_limit_are_read_within_it(tmp_path: Path, kind: str) -> None:
    rows = 32_000
    block = (
        b"".join(b'%d,%d,"%s"\n' % (row, row % 7, b"x" * 200) for row in range(rows))
        if kind == "csv"
        else b"".join(b'{"k": %d, "g": %d, "t": "%s"}\n' % (row, row % 7, b"x" * 200) for row in range(rows))
    )
    blocks = 4 * LIMIT // len(block)
    with (tmp_path / "rows").open("wb") as file:
        file.write(b"k,g,t\n" if kind == "csv" else b"")
        for _ in range(blocks):
            file.write(block)
    with LocalCluster(agents=1, slots=1, memory_bytes_max=LIMIT) as cluster:
        with cluster.connect(progress=False) as session:
            data = (session.read_csv if kind == "csv" else session.read_json)(str(tmp_path / "rows"))
            answer = data.group_by("g").aggregate([("k", "sum"), ("t", "max")]).to_table().sort_by("g")
        memory = accounts(cluster.agents[0].http_address)
    assert answer["k_sum"].to_pylist() == [blocks * sum(range(group, rows, 7)) for group in range(7)]
    assert answer["t_max"].to_pylist() == ["x" * 200] * 7
    assert memory["peak"] <= LIMIT
