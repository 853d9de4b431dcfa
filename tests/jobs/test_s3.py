"""Files in S3, against a server on loopback: each reader, by URI and by file system, and the refusal to write there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

import sabot
from sabot.client.session import Session
from sabot.errors import UsageError

from .in_process import InProcessCluster
from .rows import in_order

TABLE = pa.table({"n": range(3000), "word": [f"word {n % 7}" for n in range(3000)]})
READERS = ("parquet", "csv", "json", "ipc")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.jobs.s3_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        yield f"127.0.0.1:{int(server.stdout.readline())}"
        server.stdin.close()


@pytest.fixture(scope="module")
def bucket(endpoint: str) -> fs.S3FileSystem:
    """A file system with a bucket `lake`, in which each format has two files of half of the rows."""
    s3 = fs.S3FileSystem(
        access_key="key",
        secret_key="secret",
        region="us-east-1",
        scheme="http",
        endpoint_override=endpoint,
        allow_bucket_creation=True,
    )
    s3.create_dir("lake")
    for kind in READERS:
        for part in range(2):
            with s3.open_output_stream(f"lake/{kind}/part={part}/{part}.{kind}") as sink:
                write(sink, TABLE.slice(part * 1500, 1500), kind)
    return s3


def write(sink: pa.NativeFile, table: pa.Table, kind: str) -> None:
    match kind:
        case "parquet":
            pq.write_table(table, sink, row_group_size=100)
        case "csv":
            pa.csv.write_csv(table, sink)
        case "json":
            sink.write("".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode())
        case "ipc":
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=100)


def uri(path: str, endpoint: str) -> str:
    return f"s3://key:secret@{path}?region=us-east-1&scheme=http&endpoint_override={endpoint}"


@pytest.fixture
def session() -> Iterator[Session]:
    with InProcessCluster(2, **{"jobs.split_bytes": 4096}) as cluster:
        yield cluster.connect()


@pytest.mark.parametrize("kind", READERS)
def test_files_are_read_by_uri_and_by_file_system(
    session: Session, bucket: fs.S3FileSystem, endpoint: str, kind: str
) -> None:
    read = getattr(session, f"read_{kind}")
    whole = TABLE.append_column("part", pa.array([0] * 1500 + [1] * 1500, pa.int32()))
    by_uri = read(uri(f"lake/{kind}", endpoint))
    with by_uri.run() as result:
        assert in_order(result.to_table()) == in_order(whole)
        assert result.stats.stages[0].tasks_done > 4  # a file is shared
    assert in_order(read(f"lake/{kind}", filesystem=bucket).to_table()) == in_order(whole)
    globbed = read(uri(f"lake/{kind}/*/1.*", endpoint), ["n"])
    assert sorted(globbed.to_table()["n"].to_pylist()) == list(range(1500, 3000))
    assert f"1 of 2 {kind} file(s)" in by_uri.filter(pc.field("part") == 1).explain()
    assert by_uri.filter(pc.field("part") == 1).count_rows() == 1500


def test_row_groups_are_left_out_by_footers_in_s3(session: Session, bucket: fs.S3FileSystem) -> None:
    found = session.read_parquet("lake/parquet", filesystem=bucket).filter(pc.field("n") >= 2950)
    assert "1 of 2 parquet file(s), 1 of 30 row groups" in found.explain()
    assert sorted(found.to_table()["n"].to_pylist()) == list(range(2950, 3000))


def test_object_that_was_replaced_is_refused_by_its_etag(session: Session, bucket: fs.S3FileSystem) -> None:
    for kind in READERS:
        path = f"lake/replaced/1.{kind}"
        with bucket.open_output_stream(path) as sink:
            write(sink, TABLE.slice(0, 300), kind)
        listed = getattr(session, f"read_{kind}")(path, filesystem=bucket)
        assert listed.to_table().num_rows == 300
        with bucket.open_output_stream(path) as sink:
            write(sink, TABLE.slice(1000, 300), kind)
        with pytest.raises(UsageError, match=rf"1.{kind} has changed since the job was planned: its (etag|size) was"):
            listed.to_table()


def test_what_is_not_in_s3_is_said_by_name(session: Session, bucket: fs.S3FileSystem, endpoint: str) -> None:
    with pytest.raises(UsageError, match=r"no file matches lake/parqet; the nearest name that exists is lake/parquet"):
        session.read_parquet("lake/parqet", filesystem=bucket)
    with pytest.raises(UsageError, match=r"no file matches .*lake/parquet/\*\.csv"):
        session.read_csv(uri("lake/parquet/*.csv", endpoint))


def test_writing_to_s3_is_refused_before_work_begins(session: Session, bucket: fs.S3FileSystem, endpoint: str) -> None:
    data = session.from_table(TABLE)
    words = "cannot be written to: a dataset is published by atomic renames, which s3 does not have; write to a folder"
    for refused in (
        lambda: data.write_dataset(uri("lake/out", endpoint)),
        lambda: data.write_dataset("lake/out", filesystem=bucket),
        lambda: data.write_dataset("out", filesystem=fs.SubTreeFileSystem("lake", bucket)),
    ):
        with pytest.raises(UsageError, match=words):
            refused()
    assert bucket.get_file_info("lake/out").type is fs.FileType.NotFound


def test_agents_of_their_own_processes_read_s3_by_uri(bucket: fs.S3FileSystem, endpoint: str) -> None:
    with sabot.LocalCluster(agents=2, slots=1) as cluster:
        session = cluster.connect(progress=False)
        data = session.read_parquet(uri("lake/parquet/**/*.parquet", endpoint), partitioning=None)
        with data.group_by("word").aggregate([("n", "sum")]).run() as result:
            assert in_order(result.to_table()) == in_order(TABLE.group_by("word").aggregate([("n", "sum")]))
            assert result.receipt.exact
