"""Every reader gives what pyarrow.dataset gives for the same files, over one agent and over two."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.ipc
import pyarrow.json
import pyarrow.parquet as pq
import pytest
from pyarrow import compute as pc
from pyarrow import fs

from sabot.client.session import Session
from sabot.errors import UsageError

from .in_process import InProcessCluster
from .rows import in_order

TABLE = pa.table(
    {
        "n": pa.array([1, 2, None, 4, 5, 6, 7], pa.int64()),
        "x": pa.array([0.5, None, 2.5, 3.5, 4.5, 5.5, 6.5]),
        "word": ["a", "b", "c", "d", None, "f", "g"],
    }
)


@pytest.fixture(params=[1, 2])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with InProcessCluster(request.param) as cluster:
        yield cluster.connect()


def write(path: Path, table: pa.Table, kind: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "parquet":
            pq.write_table(table, path, row_group_size=3)
        case "csv":
            pa.csv.write_csv(table, path)
        case "json":
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
        case "ipc":
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)


def read(session: Session, kind: str, paths: Any, **asked: Any) -> pa.Table:
    return getattr(session, f"read_{kind}")(paths, **asked).to_table()


def assert_as_pyarrow(session: Session, kind: str, paths: Any, **asked: Any) -> None:
    ours = read(session, kind, paths, **asked)
    columns = asked.pop("columns", None)
    asked.setdefault("partitioning", "hive")
    theirs = ds.dataset(paths, format=kind, **asked).to_table(columns=columns)
    assert ours.schema.remove_metadata() == theirs.schema.remove_metadata()
    assert in_order(ours) == in_order(theirs)


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "ipc"])
def test_reader_gives_what_pyarrow_gives(session: Session, tmp_path: Path, kind: str) -> None:
    for index in range(3):
        write(tmp_path / f"{index}.{kind}", TABLE.slice(index * 3, 3 if index < 2 else None), kind)
    assert_as_pyarrow(session, kind, str(tmp_path))
    assert_as_pyarrow(session, kind, str(tmp_path), columns=["word", "n"])
    assert_as_pyarrow(session, kind, str(tmp_path / f"1.{kind}"))
    assert_as_pyarrow(session, kind, [str(tmp_path / f"{index}.{kind}") for index in (2, 0)])
    every = getattr(session, f"read_{kind}")(tmp_path / f"[12].{kind}")
    assert every.count_rows() == TABLE.num_rows - 3


def test_dictionaries_within_lists_of_several_row_groups_are_read_as_pyarrow_reads_them(
    session: Session, tmp_path: Path
) -> None:
    kind = pa.list_(pa.dictionary(pa.int8(), pa.string()))
    table = pa.table({"n": range(7), "l": pa.array([["a"], None, ["b", "a"], [], ["c"], ["d"], ["a"]], kind)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    answer = read(session, "parquet", tmp_path).sort_by("n")
    assert answer.schema.equals(table.schema)
    assert answer.to_pylist() == table.to_pylist() == ds.dataset(tmp_path).to_table().to_pylist()


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "ipc"])
def test_hive_folders_become_columns(session: Session, tmp_path: Path, kind: str) -> None:
    for year, city in [(2023, "Ulm"), (2024, "Bad Tölz/x"), (2024, None)]:
        folder = ds.partitioning(pa.schema([("year", pa.int32()), ("city", pa.string())]), flavor="hive").format(
            (pc.field("year") == year) & (pc.field("city") == city if city else pc.field("city").is_null())
        )[0]
        write(tmp_path / folder / f"a.{kind}", TABLE.slice(year % 5, 2), kind)
    assert_as_pyarrow(session, kind, str(tmp_path))
    assert_as_pyarrow(session, kind, str(tmp_path), columns=["city"])
    assert_as_pyarrow(session, kind, str(tmp_path), partitioning=None)
    typed = ds.partitioning(pa.schema([("year", pa.string()), ("city", pa.string())]), flavor="hive")
    assert_as_pyarrow(session, kind, str(tmp_path), partitioning=typed)
    found = ds.partitioning(flavor="hive") if kind == "csv" else ds.HivePartitioning.discover(infer_dictionary=True)
    assert_as_pyarrow(session, kind, str(tmp_path), partitioning=found)


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "ipc"])
def test_path_has_the_last_word_on_a_column_that_is_in_the_file_too(
    session: Session, tmp_path: Path, kind: str
) -> None:
    write(tmp_path / "n=7" / f"1.{kind}", pa.table({"n": pa.array([1, 2], pa.int64())}), kind)
    typed = ds.partitioning(pa.schema([("n", pa.int64())]), flavor="hive")
    assert_as_pyarrow(session, kind, str(tmp_path), partitioning=typed)
    assert read(session, kind, tmp_path, partitioning=typed)["n"].to_pylist() == [7, 7]


def test_folders_are_columns_by_their_place_where_names_are_given(session: Session, tmp_path: Path) -> None:
    for part in ("a/1", "a/2", "b/1"):
        write(tmp_path / part / "0.parquet", TABLE, "parquet")
    assert_as_pyarrow(session, "parquet", str(tmp_path), partitioning=["letter", "number"])
    ours = read(session, "parquet", tmp_path, partitioning=ds.partitioning(field_names=["letter", "number"]))
    assert ours.group_by("letter").aggregate([([], "count_all")]).sort_by("letter")["count_all"].to_pylist() == [14, 7]


@pytest.mark.parametrize("kind", ["parquet", "ipc"])
def test_first_files_columns_are_those_of_all(session: Session, tmp_path: Path, kind: str) -> None:
    write(tmp_path / f"1.{kind}", TABLE.slice(0, 2), kind)
    others = pa.table({"word": ["q"], "n": pa.array([9], pa.int32()), "more": [1]})
    write(tmp_path / f"2.{kind}", others, kind)
    write(tmp_path / f"3.{kind}", pa.table({"n": ["17"]}), kind)
    write(tmp_path / f"4.{kind}", TABLE.slice(0, 0), kind)
    assert_as_pyarrow(session, kind, str(tmp_path))
    wider = pa.schema([("more", pa.float64()), ("n", pa.int64()), ("none", pa.string())])
    assert_as_pyarrow(session, kind, str(tmp_path), schema=wider)


def test_text_columns_that_a_file_lacks_are_null(session: Session, tmp_path: Path) -> None:
    for kind in ("csv", "json"):
        write(tmp_path / kind / "1", TABLE.slice(0, 2), kind)
        write(tmp_path / kind / "2", TABLE.select(["word"]), kind)
        assert_as_pyarrow(session, kind, str(tmp_path / kind))
        wider = pa.schema([("word", pa.string()), ("none", pa.int32())])
        assert_as_pyarrow(session, kind, str(tmp_path / kind), schema=wider)


def test_text_column_without_a_value_has_the_next_files_type(session: Session, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,\n")
    (tmp_path / "2.csv").write_text("a,b\n2,5\n")
    assert read(session, "csv", tmp_path).sort_by("a") == pa.table({"a": [1, 2], "b": [None, 5]})


@pytest.mark.parametrize(
    ("kind", "second", "words"),
    [
        ("csv", "n\nq\n", r"cannot read .*2.csv as csv: .*conversion error to int64"),
        ("csv", "", r"cannot read .*2.csv as csv: Empty CSV file"),
        ("json", '{"n": "q"}\n', r"cannot read .*2.json as json"),
        ("json", "", r"cannot read .*2.json as json: Empty JSON"),
    ],
)
def test_text_that_does_not_fit_names_its_file(
    session: Session, tmp_path: Path, kind: str, second: str, words: str
) -> None:
    (tmp_path / f"1.{kind}").write_text("n\n1\n" if kind == "csv" else '{"n": 1}\n')
    (tmp_path / f"2.{kind}").write_text(second)
    with pytest.raises(pa.ArrowInvalid):
        ds.dataset(str(tmp_path), format=kind).to_table()
    with pytest.raises(UsageError, match=words):
        read(session, kind, tmp_path)


def test_value_that_a_cast_would_change_names_its_column_and_file(session: Session, tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", pa.table({"n": pa.array([1], pa.int32())}), "parquet")
    write(tmp_path / "2.parquet", pa.table({"n": pa.array([2**40], pa.int64())}), "parquet")
    with pytest.raises(
        UsageError, match=r"column 'n' of .*2.parquet is int64 and cannot be read as int32.*pass schema="
    ):
        read(session, "parquet", tmp_path)
    wide = pa.schema([("n", pa.int64())])
    assert_as_pyarrow(session, "parquet", str(tmp_path), schema=wide)


def test_folder_without_files_is_a_dataset_without_rows_where_it_has_a_schema(session: Session, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no files.*schema="):
        read(session, "parquet", tmp_path)
    assert read(session, "parquet", tmp_path, schema=TABLE.schema) == TABLE.slice(0, 0)
    with pytest.raises(UsageError, match="no file matches"):
        read(session, "parquet", tmp_path / "*.parquet", schema=TABLE.schema)


def test_options_of_pyarrow_are_followed(session: Session, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("1;nix;2\n3;b;4\n")
    asked = {
        "read_options": pa.csv.ReadOptions(column_names=["a", "b", "c"]),
        "parse_options": pa.csv.ParseOptions(delimiter=";"),
        "convert_options": pa.csv.ConvertOptions(
            null_values=["nix"], strings_can_be_null=True, column_types={"c": pa.int8()}
        ),
    }
    theirs = pa.csv.read_csv(tmp_path / "1.csv", **asked)
    assert read(session, "csv", tmp_path, **asked) == theirs
    assert read(session, "csv", tmp_path, columns=["c"], **asked) == theirs.select(["c"])
    (tmp_path / "1.json").write_text('{"a": 1,\n "b": "2024-01-02"}')
    parsing = pa.json.ParseOptions(newlines_in_values=True, explicit_schema=pa.schema([("a", pa.float32())]))
    theirs = pa.json.read_json(tmp_path / "1.json", parse_options=parsing)
    assert read(session, "json", tmp_path / "1.json", parse_options=parsing) == theirs


def test_compressed_text_is_read_by_its_ending(session: Session, tmp_path: Path) -> None:
    table = TABLE.drop_null()  # an empty text and none are one in CSV
    for kind in ("csv", "json"):
        write(tmp_path / "plain", table, kind)
        (tmp_path / f"1.{kind}.gz").write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
        with pa.output_stream(tmp_path / f"2.{kind}.zst", compression="zstd") as sink:
            sink.write((tmp_path / "plain").read_bytes())
        assert in_order(read(session, kind, tmp_path / f"*.{kind}.*")) == in_order(pa.concat_tables([table, table]))


def test_arrow_streams_are_read_as_files_are(session: Session, tmp_path: Path) -> None:
    with pa.ipc.new_stream(tmp_path / "1.arrows", TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)
    write(tmp_path / "2.arrow", TABLE, "ipc")
    ours = read(session, "ipc", tmp_path, columns=["word", "n"])
    assert in_order(ours) == in_order(pa.concat_tables([TABLE, TABLE]).select(["word", "n"]))


def test_uris_and_file_systems_of_the_users_are_read(session: Session, tmp_path: Path) -> None:
    for name in ("p/k=1/1", "p/k=2/2"):
        write(tmp_path / f"{name}.parquet", TABLE, "parquet")
    whole = in_order(read(session, "parquet", tmp_path))
    assert in_order(read(session, "parquet", tmp_path.as_uri())) == whole
    assert in_order(read(session, "parquet", f"{tmp_path.as_uri()}/p/*/[12].parquet")) == whole
    assert in_order(read(session, "parquet", f"{tmp_path.as_uri()}/**/*.parquet")) == whole
    below = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    assert_as_pyarrow(session, "parquet", "p", filesystem=below)
    assert in_order(read(session, "parquet", "p/k=[12]/*", filesystem=below)) == whole
    with pytest.raises(UsageError, match=r"no file matches q; the nearest name that exists is p|no file matches q"):
        read(session, "parquet", "q", filesystem=below)
    with pytest.raises(UsageError, match="names its file system"):
        read(session, "parquet", tmp_path.as_uri(), filesystem=below)
    with pytest.raises(UsageError, match="another file system"):
        read(session, "parquet", [str(tmp_path), "mock:///x"])
    with pytest.raises(UsageError, match="not the URI of a file system"):
        read(session, "parquet", "nosuch://x/y")


def test_batches_of_this_process_are_a_dataset(session: Session) -> None:
    batches = TABLE.to_batches(max_chunksize=2)
    assert session.from_batches(batches).to_table() == TABLE
    assert session.from_batches(iter(batches), schema=TABLE.schema).to_table() == TABLE
    assert session.from_batches(TABLE.to_reader()).to_table() == TABLE
    assert session.from_batches([], schema=TABLE.schema).to_table() == TABLE.slice(0, 0)
    with pytest.raises(UsageError, match=r"from_batches: .*schema"):
        session.from_batches([])
    with pytest.raises(UsageError, match="from_batches"):
        session.from_batches([*batches, *pa.table({"z": [1]}).to_batches()])


def test_file_changed_after_it_was_listed_is_refused_by_name(session: Session, tmp_path: Path) -> None:
    for kind in ("parquet", "csv", "json", "ipc"):
        path = tmp_path / f"1.{kind}"
        write(path, TABLE, kind)
        listed = getattr(session, f"read_{kind}")(path)
        write(path, TABLE.slice(0, 2), kind)
        with pytest.raises(UsageError, match=rf"1.{kind} has changed since the job was planned: its size was"):
            listed.to_table()
