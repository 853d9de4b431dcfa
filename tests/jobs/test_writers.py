"""Written datasets are those that pyarrow.dataset would write, over one agent and over two: rows, folders, options."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from pyarrow import compute as pc
from pyarrow import fs

from sabot.client.session import Session
from sabot.errors import LimitReached, UsageError

from .in_process import InProcessCluster
from .rows import in_order

ROWS = 60
TABLE = pa.table(
    {
        "n": pa.array(range(ROWS), pa.int64()),
        "year": pa.array([2020 + index % 3 for index in range(ROWS)], pa.int32()),
        "city": ["Ulm", "Bad Tölz/x", None, "a=b"] * (ROWS // 4),
        "word": [f"word {index}" for index in range(ROWS)],
    }
)


@pytest.fixture(params=[1, 2])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with InProcessCluster(request.param) as cluster:
        yield cluster.connect()
        cluster.check_nothing_held()


def files_in(folder: Path) -> list[str]:
    """Relative paths of all files but hidden ones."""
    found = sorted(os.path.relpath(path, folder) for path in folder.rglob("*") if path.is_file())
    return [path for path in found if not path.startswith(".")]


def folders_in(folder: Path) -> set[str]:
    return {str(Path(path).parent) for path in files_in(folder)}


@pytest.mark.parametrize("kind", ["parquet", "csv", "ipc"])
@pytest.mark.parametrize("flavor", ["hive", None])
def test_partitions_lie_where_pyarrow_puts_them(
    session: Session, tmp_path: Path, kind: str, flavor: str | None
) -> None:
    table = TABLE.drop_null() if flavor is None else TABLE
    asked: dict[str, Any] = {"partitioning": ["year", "city"], "partitioning_flavor": flavor}
    session.from_table(table).write_dataset(tmp_path / "ours", format=kind, **asked).close()
    ds.write_dataset(table, tmp_path / "theirs", format=kind, **asked)
    found = ds.partitioning(field_names=["year", "city"]) if flavor is None else "hive"
    # A slash in a value is a folder of its own where names do not escape it: pyarrow does so, too.
    assert folders_in(tmp_path / "ours") == folders_in(tmp_path / "theirs")
    if flavor == "hive":
        ours = ds.dataset(tmp_path / "ours", format=kind, partitioning=found).to_table()
        assert ours.schema.names == ["n", "word", "year", "city"]
        assert in_order(ours) == in_order(table.select(ours.schema.names))
        again = getattr(session, f"read_{kind}")(tmp_path / "ours")
        assert in_order(again.to_table()) == in_order(ours)


def test_partitioning_of_pyarrow_is_taken(session: Session, tmp_path: Path) -> None:
    by_year = ds.partitioning(pa.schema([("year", pa.int32())]), flavor="hive")
    table = TABLE.set_column(1, "year", TABLE["year"].cast(pa.string()).dictionary_encode())
    session.from_table(table).write_dataset(tmp_path / "a", partitioning=by_year)
    assert folders_in(tmp_path / "a") == {"year=2020", "year=2021", "year=2022"}
    by_place = ds.partitioning(pa.schema([("year", pa.int32())]))
    session.from_table(TABLE).write_dataset(tmp_path / "b", partitioning=by_place)
    assert folders_in(tmp_path / "b") == {"2020", "2021", "2022"}


@pytest.mark.parametrize(
    "key",
    [
        pa.array([True, None]),
        pa.array([1.5, float("nan")]),
        pa.array([datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
        pa.array([date(2020, 1, 2), date(1999, 12, 31)]),
        pa.array([Decimal("1.50"), Decimal("2.25")]),
        pa.array([b"x", b"y/"]),
        pa.array(["", "a"], pa.large_string()),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["a", "b"], pa.string_view()),
    ],
    ids=lambda key: str(key.type),
)
def test_values_of_any_type_name_folders_as_pyarrow_names_them(tmp_path: Path, key: pa.Array) -> None:
    table = pa.table({"v": [1, 2], "key": key, "nested": [[1], []], "view": pa.array(["a", None], pa.string_view())})
    with InProcessCluster(1) as cluster:
        cluster.connect().from_table(table).write_dataset(tmp_path / "ours", partitioning=["key"])
    plain = table.drop_columns(["view"])  # which pyarrow does not part
    ds.write_dataset(plain, tmp_path / "theirs", format="parquet", partitioning=["key"], partitioning_flavor="hive")
    assert folders_in(tmp_path / "ours") == folders_in(tmp_path / "theirs")
    ours, theirs = (ds.dataset(tmp_path / name, partitioning="hive").to_table() for name in ("ours", "theirs"))
    columns = ["v", "nested", "key"]
    assert ours.select(columns).sort_by("v").equals(theirs.select(columns).sort_by("v"))
    assert dict(zip(ours["v"].to_pylist(), ours["view"].to_pylist(), strict=True)) == {1: "a", 2: None}


def test_files_are_named_cut_and_made_as_asked(session: Session, tmp_path: Path) -> None:
    session.from_table(TABLE).repartition("n", 2).write_dataset(
        tmp_path / "out",
        basename_template="x-{i}.pq",
        max_rows_per_file=7,
        max_rows_per_group=3,
        file_options={"compression": "zstd"},
    ).close()
    files = sorted((tmp_path / "out").glob("*.pq"))
    assert {path.name.split("-")[0] for path in files} == {"x"}
    read = [pq.ParquetFile(path) for path in files]
    assert max(file.metadata.num_rows for file in read) == 7
    assert max(file.metadata.row_group(0).num_rows for file in read) == 3
    assert {file.metadata.row_group(0).column(0).compression for file in read} == {"ZSTD"}
    assert in_order(ds.dataset([str(path) for path in files]).to_table()) == in_order(TABLE)


def test_few_open_files_are_enough_for_many_folders(session: Session, tmp_path: Path) -> None:
    data = session.from_table(TABLE).map_batches(lambda batch: batch, schema=TABLE.schema, processes=False)
    data.write_dataset(tmp_path / "out", partitioning=["n"], max_open_files=2)
    assert len(folders_in(tmp_path / "out")) == ROWS
    again = ds.dataset(tmp_path / "out", partitioning=ds.partitioning(pa.schema([("n", pa.int64())]), flavor="hive"))
    assert in_order(again.to_table().select(TABLE.schema.names)) == in_order(TABLE)


def test_options_of_each_format_are_followed(session: Session, tmp_path: Path) -> None:
    data = session.from_table(TABLE.select(["n"]))
    data.write_dataset(tmp_path / "csv", format="csv", file_options={"delimiter": ";", "include_header": False})
    text = "".join(path.read_text() for path in sorted((tmp_path / "csv").glob("*.csv")))
    assert text.split() == [str(index) for index in range(ROWS)]
    data.write_dataset(tmp_path / "ipc", format="feather", file_options={"compression": "lz4"})
    assert in_order(session.read_ipc(tmp_path / "ipc").to_table()) == in_order(TABLE.select(["n"]))


def test_no_rows_are_one_file_with_columns(session: Session, tmp_path: Path) -> None:
    data = session.from_table(TABLE).repartition("n", 4)
    data.filter(pc.field("n") < 0).write_dataset(tmp_path / "none").close()
    assert files_in(tmp_path / "none") == ["part-00000.parquet"]
    assert session.read_parquet(tmp_path / "none").to_table() == TABLE.slice(0, 0)
    data.filter(pc.field("n") == 3).write_dataset(tmp_path / "one").close()
    assert len(files_in(tmp_path / "one")) == 1
    data.filter(pc.field("n") < 0).write_dataset(tmp_path / "k", partitioning=["year"]).close()
    assert files_in(tmp_path / "k") == []


def test_existing_data_is_refused_kept_or_replaced(session: Session, tmp_path: Path) -> None:
    data = session.from_table(TABLE)
    asked: dict[str, Any] = {"partitioning": ["year"], "partitioning_flavor": "hive"}
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        ds.write_dataset(TABLE, folder, format="parquet", basename_template="old-{i}", **asked)
    with pytest.raises(UsageError, match=r"is not empty, it holds year=2020.*existing_data_behavior="):
        data.write_dataset(tmp_path / "ours", **asked)
    part = data.filter(pc.field("year") == 2021)
    for behavior in ("overwrite_or_ignore", "delete_matching"):
        part.write_dataset(tmp_path / "ours", existing_data_behavior=behavior, **asked).close()
        ds.write_dataset(
            TABLE.filter(pc.field("year") == 2021),
            tmp_path / "theirs",
            format="parquet",
            existing_data_behavior=behavior,
            **asked,
        )
        ours, theirs = (ds.dataset(tmp_path / name, partitioning="hive").to_table() for name in ("ours", "theirs"))
        assert in_order(ours) == in_order(theirs)
    part.write_dataset(tmp_path / "ours", existing_data_behavior="overwrite_or_ignore", **asked).close()
    assert in_order(ds.dataset(tmp_path / "ours", partitioning="hive").to_table()) == in_order(theirs)


def test_paths_may_be_uris_and_of_local_file_systems(session: Session, tmp_path: Path, monkeypatch: Any) -> None:
    data = session.from_table(TABLE)
    monkeypatch.chdir(tmp_path)
    below = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    data.write_dataset("relative")
    data.write_dataset((tmp_path / "uri").as_uri())
    data.write_dataset("below/it", filesystem=below)
    for name in ("relative", "uri", "below/it"):
        assert in_order(ds.dataset(tmp_path / name).to_table()) == in_order(TABLE)
    with pytest.raises(UsageError, match=r"s3://b/c cannot be written to: .* atomic renames, which s3 does not have"):
        data.write_dataset("s3://b/c")
    with pytest.raises(UsageError, match="atomic renames, which mock does not have"):
        data.write_dataset("x", filesystem=fs._MockFileSystem())


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"partitioning": ["nope"]}, "partitioning: no column 'nope'"),
        ({"partitioning": ["n", "year", "city", "word"]}, "none is left for the files"),
        ({"partitioning": ["n", "n"]}, "a column is twice"),
        ({"partitioning": "n"}, "takes a list of columns"),
        ({"partitioning": ["n"], "partitioning_flavor": "filename"}, "partitioning_flavor is"),
        ({"basename_template": "part.parquet"}, r"with \{i\} for its number"),
        ({"existing_data_behavior": "append"}, "existing_data_behavior is one of"),
        ({"file_options": ds.ParquetFileFormat().make_write_options()}, "file_options takes a dict"),
        ({"file_options": {"compresion": "zstd"}}, "file_options .* do not suit parquet"),
        ({"max_rows_per_file": -1}, "max_rows_per_file is a number"),
    ],
)
def test_what_cannot_be_written_so_is_refused_before_work_begins(
    session: Session, tmp_path: Path, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        session.from_table(TABLE).write_dataset(tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_nothing_hidden_is_left_when_the_client_knows(tmp_path: Path) -> None:
    with InProcessCluster(2) as cluster:
        cluster.connect().from_table(TABLE).write_dataset(tmp_path / "out")
        cluster.wait_until(lambda: not list((tmp_path / "out").glob(".*")))


def test_nested_columns_are_refused_as_csv_before_work_begins(session: Session, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written as csv"):
        session.from_table(pa.table({"a": [[1]]})).write_dataset(tmp_path / "out", format="csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_disk_is_named_by_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fill(batch: pa.RecordBatch) -> pa.RecordBatch:
        """Leads the files that the attempts are about to write to a disk that is full."""
        hidden = next(out.glob(".sabot-*"))
        for attempt in range(8):
            (hidden / f"attempt-{attempt}").mkdir(exist_ok=True)
            link = hidden / f"attempt-{attempt}" / "x00000"
            if not link.is_symlink():
                link.symlink_to("/dev/full")
        return batch

    with InProcessCluster(1) as cluster:
        data = cluster.connect().from_table(TABLE).map_batches(fill, schema=TABLE.schema, processes=False)
        with pytest.raises(LimitReached, match=r"the disk of .*out is full: .*make room there"):
            data.write_dataset(out, basename_template="x{i}", format="csv")
        cluster.wait_until(lambda: not out.exists())
