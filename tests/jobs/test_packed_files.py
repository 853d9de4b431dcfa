"""Files whose rows have many times as many bytes in memory as in the file: they are reserved for and read as what they
are there, so that a small limit holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sabot import LocalCluster
from sabot.agent.files.file_readers import FilePiece, file_pieces
from sabot.agent.files.footers import Footers
from sabot.agent.files.parquet_sizes import rows_at_once
from sabot.agent.files.sources import Source, describe_source
from sabot.client.session import Session
from sabot.dataflow.scan import SourceRequest
from sabot.dataflow.splits import part_bytes
from sabot.dataflow.stage import FilePart, FilesSplit, ScanInput
from tests.memory.test_agent_memory import accounts

MIB = 1 << 20
MEMORY_BYTES = 96 * MIB
FILES, ROWS = 4, 100_000  # a row group each, 60 MB in memory
WORDS = pa.array([letter * 300 for letter in "abcdefgh"])


def packed(first: int, rows: int) -> pa.Table:
    numbers = pa.array(range(first, first + rows), pa.int64())
    word = pc.bit_wise_and(numbers, 7)
    return pa.table(
        {
            "k": numbers,
            "g": pc.bit_wise_and(numbers, 1023),
            "text": WORDS.take(word),
            "runs": WORDS.take(pc.bit_wise_and(pc.shift_right(numbers, 12), 7)),
            "flat": pa.array([1.5] * rows),
        }
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    for index in range(FILES):
        rows = packed(index * ROWS, ROWS)
        pq.write_table(rows, folder / f"{index}.parquet", row_group_size=ROWS)
        assert rows.nbytes > 50 * pq.read_metadata(folder / f"{index}.parquet").row_group(0).total_byte_size
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(agents=2, slots=1, memory_bytes_max=MEMORY_BYTES) as running:
        yield running
        for agent in running.agents:
            memory = accounts(agent.http_address)
            assert memory["bytes_max"] == MEMORY_BYTES and 0 < memory["peak"] <= MEMORY_BYTES


@pytest.fixture
def session(cluster: LocalCluster) -> Iterator[Session]:
    with cluster.connect(progress=False, broadcast_bytes_max=0) as session:
        yield session


def numbers_in(batch: pa.RecordBatch) -> list[int]:
    """Of rows whose texts are those that belong to them."""
    expected = WORDS.take(pc.bit_wise_and(batch["k"], 7))
    assert batch["text"].equals(expected)
    return batch["k"].to_pylist()


def test_packed_files_are_grouped(session: Session, files: Path) -> None:
    data = session.read_parquet(str(files))
    answer = data.group_by("g").aggregate([("text", "max"), ("runs", "min"), ("k", "sum")]).to_table().sort_by("g")
    sums = [sum(range(group, FILES * ROWS, 1024)) for group in range(1024)]
    assert answer["k_sum"].to_pylist() == sums
    assert answer["text_max"].combine_chunks().equals(WORDS.take(pc.bit_wise_and(answer["g"], 7)).combine_chunks())
    assert pc.all(pc.equal(answer["runs_min"], WORDS[0])).as_py()


@pytest.mark.parametrize("what", ["repartition", "filter", "sort"])
def test_packed_files_come_whole(session: Session, files: Path, what: str) -> None:
    data = session.read_parquet(str(files))
    job = {
        "repartition": lambda: data.repartition("k"),
        "filter": lambda: data.filter(pc.field("flat") > 1),
        "sort": lambda: data.sort_by([("k", "descending")]),
    }[what]()
    found: list[int] = []
    with job.run() as result:
        assert result.receipt.exact
        for batch in result.to_batches():
            found += numbers_in(batch)
    every = list(range(FILES * ROWS))
    assert found == every[::-1] if what == "sort" else sorted(found) == every


def source_of(table: pa.Table, path: Path, *, row_group_size: int) -> Source:
    pq.write_table(table, path, row_group_size=row_group_size)
    return describe_source(SourceRequest(format="parquet", paths=(str(path),)))


def pieces_of_source(source: Source, columns: list[str] | None, bytes_max: int) -> list[FilePiece]:
    schema = source.schema if columns is None else pa.schema([source.schema.field(name) for name in columns])
    scan = ScanInput(format="parquet", files=source.files, columns=None, schema=schema)
    (file,) = source.files
    groups = tuple(range(file.num_row_groups))
    split = FilesSplit(parts=(FilePart(file=file, row_groups=groups, rows=sum(file.row_group_rows)),))
    return list(file_pieces(split, scan, agent_id="here", footers=Footers(), bytes_max=bytes_max))


def read_all(pieces: list[FilePiece]) -> list[pa.Table]:
    tables = []
    for piece in pieces:
        while not piece.ended:
            tables.append(piece.read().take())
    return tables


@pytest.mark.parametrize("row_group_size", [50_000, 9_000])
@pytest.mark.parametrize("columns", [None, ["k", "flat"], ["runs"]], ids=str)
def test_a_row_group_is_read_some_rows_at_a_time(
    tmp_path: Path, row_group_size: int, columns: list[str] | None
) -> None:
    table = packed(0, 50_000)
    source = source_of(table, tmp_path / "1.parquet", row_group_size=row_group_size)
    tables = read_all(pieces_of_source(source, columns, MIB // 4))
    assert max(one.nbytes for one in tables) < MIB // 2
    assert pa.concat_tables(tables).equals(table if columns is None else table.select(columns))


def test_texts_that_the_footer_says_nothing_of_are_counted_as_they_come(tmp_path: Path) -> None:
    long = pa.array(["a"] + ["m" * 2000] * 19_998 + ["z"])  # its least and greatest are short
    source = source_of(pa.table({"t": long}), tmp_path / "1.parquet", row_group_size=20_000)
    tables = read_all(pieces_of_source(source, None, MIB))
    assert pa.concat_tables(tables)["t"].combine_chunks().equals(long)
    assert max(one.nbytes for one in tables) < long.nbytes  # a guess of 16,384 rows at most
    pq.write_table(pa.table({"t": long}), tmp_path / "2.parquet", write_statistics=False)
    source = describe_source(SourceRequest(format="parquet", paths=(str(tmp_path / "2.parquet"),)))
    tables = read_all(pieces_of_source(source, None, MIB))
    assert max(one.nbytes for one in tables) <= 4096 * 2004 + MIB


def test_rows_are_read_without_columns_and_of_row_groups_without_rows(tmp_path: Path) -> None:
    source = source_of(pa.table({"k": range(50_000)}), tmp_path / "1.parquet", row_group_size=10_000)
    assert sum(one.num_rows for one in read_all(pieces_of_source(source, [], MIB))) == 50_000
    source = source_of(pa.table({"k": pa.array([], pa.int64())}), tmp_path / "2.parquet", row_group_size=10)
    assert [one.num_rows for one in read_all(pieces_of_source(source, None, MIB))] in ([], [0])


def test_pages_that_are_large_themselves_are_read_bit_by_bit(tmp_path: Path) -> None:
    """What is allocated while a row group is read is a fraction of what it has in the file."""
    rows = 400_000
    table = pa.table({f"c{index}": pa.array(range(index, index + rows), pa.int64()) for index in range(4)})
    path = tmp_path / "1.parquet"
    pq.write_table(table, path, row_group_size=rows, use_dictionary=False, compression="none")
    source = describe_source(SourceRequest(format="parquet", paths=(str(path),)))
    (piece,) = pieces_of_source(source, None, MIB)
    assert part_bytes(piece.part) > 12 * MIB
    before = pa.total_allocated_bytes()
    peak = rows_read = 0
    while not piece.ended:
        rows_read += piece.read().take().num_rows
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert rows_read == rows and peak < 6 * MIB


def test_rows_at_once_are_counted_where_values_are_equally_long_and_guessed_where_they_are_packed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "1.parquet"
    rows = 100_000
    plain = pa.table({"k": range(rows), "text": [f"{row:020}" for row in range(rows)], "word": ["x" * 100] * rows})
    pq.write_table(plain, path, use_dictionary=["word"])
    metadata, schema = pq.read_metadata(path), plain.schema
    assert rows_at_once(metadata, schema, ["k"], [0], 80_000) == 80_000 * 8 // 65 // 4
    assert rows_at_once(metadata, schema, ["k"], [0], 1 << 40) == rows
    assert 600 < rows_at_once(metadata, schema, ["text"], [0], 80_000) < 900
    assert rows_at_once(metadata, schema, ["word"], [0], 104_000) == 250
    assert rows_at_once(metadata, schema, ["word"], [0], 1 << 40) == 1 << 14
