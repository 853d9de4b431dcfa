"""Sources are listed with their files pinned, and what is wrong with them is said by name."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from sabot.agent.files.file_listing import list_source, nearest_existing
from sabot.agent.files.sources import Source, pinned_faults
from sabot.agent.files.sources import describe_source as describe
from sabot.dataflow.scan import SourceRequest
from sabot.dataflow.stage import FileFormat, SourceFile
from sabot.errors import UsageError


def describe_source(format: FileFormat, paths: list[str], **asked: Any) -> Source:
    return describe(SourceRequest(format=format, paths=tuple(paths), **asked))


def write_parquet(path: Path, table: pa.Table, *, row_group_rows: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_rows)
    return path


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def faults(file: SourceFile, filesystem: fs.FileSystem) -> list[str]:
    with filesystem.open_input_file(file.path) as opened:
        return list(pinned_faults(file, filesystem, opened))


LOCAL = fs.LocalFileSystem()
TABLE = pa.table({"a": pa.array(range(250), pa.int64()), "b": [str(i) for i in range(250)]})


def test_parquet_file_is_pinned_with_its_row_groups(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", TABLE)
    source = describe_source("parquet", [str(path)])
    (file,) = source.files
    assert source.schema == TABLE.schema
    assert (file.path, file.size_bytes, file.modified_ns) == (str(path), path.stat().st_size, path.stat().st_mtime_ns)
    assert file.row_group_rows == (100, 100, 50)
    assert len(file.row_group_bytes) == 3 and all(size > 0 for size in file.row_group_bytes)


def test_folder_is_listed_in_order_without_hidden_names(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "sub/c.parquet", "_temporary/x.parquet", ".sabot-1/y.parquet"):
        write_parquet(tmp_path / name, TABLE)
    (tmp_path / "_SUCCESS").touch()
    source = describe_source("parquet", [str(tmp_path)])
    assert [os.path.relpath(file.path, tmp_path) for file in source.files] == [
        "a.parquet",
        "b.parquet",
        "sub/c.parquet",
    ]


def test_glob_is_listed_in_order(tmp_path: Path) -> None:
    for name in ("p2.parquet", "p1.parquet", "q.parquet"):
        write_parquet(tmp_path / name, TABLE)
    source = describe_source("parquet", [str(tmp_path / "p*.parquet")])
    assert [Path(file.path).name for file in source.files] == ["p1.parquet", "p2.parquet"]


def test_name_with_glob_characters_is_a_file_first(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a[1].parquet", TABLE)
    assert [file.path for file in describe_source("parquet", [str(path)]).files] == [str(path)]


def test_file_named_twice_is_read_twice(tmp_path: Path) -> None:
    path = str(write_parquet(tmp_path / "x.parquet", TABLE))
    assert len(describe_source("parquet", [path, path]).files) == 2


def test_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    write_parquet(tmp_path / "lineitem.parquet", TABLE)
    with pytest.raises(UsageError, match=r"linitem.parquet.*nearest name that exists is .*/lineitem.parquet") as caught:
        describe_source("parquet", [str(tmp_path / "linitem.parquet")])
    assert caught.value.facts["path"] == str(tmp_path / "linitem.parquet")


def test_missing_folder_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "lineitem").mkdir()
    with pytest.raises(UsageError, match=r"nearest name that exists is .*/lineitem"):
        describe_source("parquet", [str(tmp_path / "linitem" / "deep" / "*.parquet")])


def test_nothing_similar_names_the_folder_that_exists(tmp_path: Path) -> None:
    assert nearest_existing(f"{tmp_path}/zzz/y") == f"the folder {tmp_path} exists, and holds nothing of a similar name"


@pytest.mark.parametrize("path", ["x.parquet", "./data", "*.parquet"])
def test_relative_path_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="relative"):
        describe_source("parquet", [path])


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no files"):
        describe_source("parquet", [str(tmp_path)])


def test_no_paths_and_unknown_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no paths"):
        describe_source("parquet", [])
    with pytest.raises(UsageError, match="no reader for 'orc'; known are csv, ipc, json, parquet"):
        describe_source("orc", [str(tmp_path)])


@pytest.mark.parametrize(
    "other",
    [
        pa.table({"a": pa.array([1], pa.int32()), "b": ["x"]}),
        pa.table({"a": ["1"]}),
        pa.table({"b": ["x"], "c": [1.5]}),
    ],
)
def test_schema_is_the_first_files(tmp_path: Path, other: pa.Table) -> None:
    write_parquet(tmp_path / "1.parquet", TABLE)
    write_parquet(tmp_path / "2.parquet", other)
    assert describe_source("parquet", [str(tmp_path)]).schema == TABLE.schema


def test_column_without_a_cast_names_both_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "1.parquet", TABLE)
    write_parquet(tmp_path / "2.parquet", pa.table({"a": [[1]]}))
    with pytest.raises(UsageError, match=r"column 'a' is list<.*2.parquet, which cannot become int64.*1.parquet"):
        describe_source("parquet", [str(tmp_path)])


def test_nullability_may_differ(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "1.parquet", pa.table([[1]], schema=pa.schema([pa.field("a", pa.int64(), nullable=False)]))
    )
    write_parquet(tmp_path / "2.parquet", pa.table({"a": pa.array([None], pa.int64())}))
    assert describe_source("parquet", [str(tmp_path)]).schema.field("a").nullable


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_file_of_another_format_names_the_file(tmp_path: Path, format: str) -> None:
    path = tmp_path / "odd"
    path.write_bytes(b"a,b\n1,2,3\n")
    with pytest.raises(UsageError, match=f"{path} cannot be read as {format}"):
        describe_source(format, [str(path)]) if format == "parquet" else describe_csv_rows(path)


def describe_csv_rows(path: Path) -> None:
    path.write_bytes(b"")
    describe_source("csv", [str(path)])


def test_csv_types_are_inferred(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", "n,when,word\n1,2013-01-02,x\n2,2013-01-03,y\n")
    source = describe_source("csv", [str(path)])
    assert source.schema == pa.schema([("n", pa.int64()), ("when", pa.date32()), ("word", pa.string())])
    assert source.files[0].row_group_rows == ()


def test_csv_column_empty_in_one_file_takes_the_other_files_type(tmp_path: Path) -> None:
    write_csv(tmp_path / "1.csv", "a,b\n1,\n")
    write_csv(tmp_path / "2.csv", "a,b\n2,5\n")
    assert describe_source("csv", [str(tmp_path)]).schema.field("b").type == pa.int64()


def test_change_after_pinning_is_seen(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", TABLE)
    (file,) = describe_source("parquet", [str(path)]).files
    assert not faults(file, LOCAL)
    os.utime(path, ns=(0, file.modified_ns + 1))
    assert faults(file, LOCAL) == ["it was modified"]
    path.write_bytes(b"")
    assert "and is 0" in faults(file, LOCAL)[0]


def test_etag_is_pinned_where_the_file_system_has_one() -> None:
    remote = fs._MockFileSystem(datetime(2024, 1, 2, tzinfo=UTC))  # whose files are all of one time

    def put(text: bytes, etag: str) -> None:
        with remote.open_output_stream("d/1.csv", metadata={"ETag": etag}) as sink:
            sink.write(text)

    remote.create_dir("d")
    put(b"a\n1\n", "first")
    (file,) = describe_source("csv", ["d"], filesystem=remote).files
    assert (file.path, file.etag) == ("d/1.csv", "first")
    assert not faults(file, remote)
    put(b"a\n2\n", "second")
    assert faults(file, remote) == ["its etag was first and is second"]


def test_globs_match_as_a_shells_do(tmp_path: Path) -> None:
    for name in ("a/1.csv", "a/b/2.csv", "a/b/c/3.csv", "x.csv", ".hidden.csv", "a/.4.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_csv(tmp_path / name, "n\n1\n")

    def found(pattern: str) -> list[str]:
        return [os.path.relpath(info.path, tmp_path) for info in list_source([f"{tmp_path}/{pattern}"]).files]

    assert found("*.csv") == ["x.csv"]
    assert found(".*.csv") == [".hidden.csv"]
    assert found("a/*/*.csv") == ["a/b/2.csv"]
    assert found("a/**/*.csv") == ["a/1.csv", "a/b/2.csv", "a/b/c/3.csv"]
    assert found("a/b/**") == ["a/b/2.csv", "a/b/c/3.csv"]
    assert found("[ax]*/[!b]*.csv") == ["a/1.csv"]
    assert found("**/3.csv") == ["a/b/c/3.csv"]
