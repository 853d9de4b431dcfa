"""The footer of a Parquet file is read once, and kept no longer than there is room for it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sabot.agent.files.file_readers import file_pieces
from sabot.agent.files.footers import Footers
from sabot.agent.files.sources import describe_source
from sabot.dataflow.scan import SourceRequest
from sabot.dataflow.splits import PIECE_BYTES
from sabot.dataflow.stage import FilePart, FilesSplit, ScanInput, SourceFile
from sabot.errors import UsageError

TABLE = pa.table({"n": range(100)})


def written(path: Path) -> SourceFile:
    pq.write_table(TABLE, path, row_group_size=10)
    (file,) = describe_source(SourceRequest(format="parquet", paths=(str(path),))).files
    return file


def without_footer(file: SourceFile) -> SourceFile:
    """The file with its pages and no footer, pinned as it is now."""
    path = Path(file.path)
    text = path.read_bytes()
    path.write_bytes(text[:-12] + bytes(12))
    return file


def read(file: SourceFile, footers: Footers, pins: SourceFile | None = None) -> pa.Table:
    with pa.OSFile(file.path) as opened, footers.open(opened, pins or file, b"") as parquet:
        return parquet.read()


def test_footer_that_was_read_is_not_read_again(tmp_path: Path) -> None:
    footers = Footers()
    file = written(tmp_path / "1.parquet")
    assert read(file, footers) == TABLE
    without_footer(file)
    assert read(file, footers) == TABLE
    with pytest.raises(pa.ArrowInvalid):
        read(file, Footers())


@pytest.mark.parametrize("changed", ["size_bytes", "modified_ns", "etag", "path", "filesystem"])
def test_footer_of_another_file_is_not_used(tmp_path: Path, changed: str) -> None:
    footers = Footers()
    file = written(tmp_path / "1.parquet")
    facts = {"path": file.path, "size_bytes": file.size_bytes, "modified_ns": file.modified_ns, "etag": file.etag}
    other = SourceFile(**{**facts, **({changed: type(facts[changed])(7)} if changed in facts else {})})
    with pa.OSFile(file.path) as opened, footers.open(opened, other, b"" if changed != "filesystem" else b"s3"):
        pass
    without_footer(file)
    with pytest.raises(pa.ArrowInvalid):
        read(file, footers)


def test_footers_beyond_the_limit_are_dropped_those_used_long_ago_first(tmp_path: Path) -> None:
    files = [written(tmp_path / f"{index}.parquet") for index in range(3)]
    size = pq.read_metadata(files[0].path).serialized_size
    footers = Footers(bytes_max=2 * size + size // 2)
    for index in (0, 1, 0, 2):
        read(files[index], footers)
    for file in files:
        without_footer(file)
    assert read(files[0], footers) == read(files[2], footers) == TABLE
    with pytest.raises(pa.ArrowInvalid):
        read(files[1], footers)


def test_kept_footer_does_not_hide_that_the_file_has_changed(tmp_path: Path) -> None:
    footers = Footers()
    file = written(tmp_path / "1.parquet")
    scan = ScanInput(format="parquet", files=(file,), columns=None, schema=TABLE.schema)
    split = FilesSplit(parts=(FilePart(file=file, row_groups=(0, 1), rows=20),))
    first, second = (
        next(file_pieces(split, scan, agent_id="here", footers=footers, bytes_max=1 << 20)) for _ in range(2)
    )
    assert first.read().take().num_rows == 20
    pq.write_table(TABLE.slice(0, 50), file.path)
    with pytest.raises(UsageError, match=r"1.parquet has changed since the job was planned"):
        second.read()


def test_small_row_groups_are_read_together_and_large_ones_alone() -> None:
    sizes = (PIECE_BYTES // 3, PIECE_BYTES // 3, PIECE_BYTES // 2, 3 * PIECE_BYTES, 5, 6)
    file = SourceFile(path="1", size_bytes=1, modified_ns=1, row_group_rows=(1,) * 6, row_group_bytes=sizes)
    scan = ScanInput(format="parquet", files=(file,), columns=None, schema=TABLE.schema)
    split = FilesSplit(parts=(FilePart(file=file, row_groups=tuple(range(6)), rows=6),))
    pieces = list(file_pieces(split, scan, agent_id="here", footers=Footers(), bytes_max=1 << 30))
    assert [piece.part.row_groups for piece in pieces] == [(0, 1), (2,), (3,), (4, 5)]
