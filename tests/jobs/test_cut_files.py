"""However a text or IPC file is cut, its parts give the rows that pyarrow gives for the whole file, or say why not."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.json
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sabot.agent.files.csv_quotes import ends_within_value
from sabot.agent.files.file_readers import file_pieces
from sabot.agent.files.footers import Footers
from sabot.agent.files.ipc_files import batch_bytes
from sabot.agent.files.sources import describe_source
from sabot.dataflow.scan import SourceRequest
from sabot.dataflow.splits import splits_of
from sabot.dataflow.stage import FileFormat, FilesSplit, JobPlan, ResultOutput, ScanInput, Stage
from sabot.errors import UsageError

from .in_process import InProcessCluster
from .rows import in_order

quiet = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def parts_of(format: FileFormat, path: Path, options: dict[str, Any], split_bytes: int, slots: int) -> ScanAndSplits:
    source = describe_source(SourceRequest(format=format, paths=(str(path),), options=options))
    scan = ScanInput(format=format, files=source.files, columns=None, schema=source.schema, options=options)
    stage = Stage(stage_id=0, label="", input=scan, steps=(), output=ResultOutput(), schema=source.schema)
    splits = splits_of(
        stage, JobPlan(job_id="", stages=(stage,)), num_partitions=None, split_bytes=split_bytes, slots=slots
    )
    assert all(isinstance(split, FilesSplit) for split in splits)
    return scan, splits  # type: ignore[return-value]


ScanAndSplits = tuple[ScanInput, list[FilesSplit]]


def read_in_parts(
    format: FileFormat, path: Path, *, split_bytes: int = 1, slots: int = 1, **options: Any
) -> tuple[int, pa.Table]:
    """How many tasks read the file, and its rows in their order."""
    scan, splits = parts_of(format, path, options, split_bytes, slots)
    tables = [
        piece.read().take()
        for split in splits
        for piece in file_pieces(split, scan, agent_id="here", footers=Footers(), bytes_max=1 << 30)
    ]
    return len(splits), pa.concat_tables(tables)


line_ends = st.sampled_from(["\n", "\r\n", "\r"])
values = st.sampled_from(
    ["", "1", "-7", "3.5", "2024-01-02", "word", "NA", '"a,b"', '"a ""b"""', 'pipe 5"', "true", "ü"]
)


@st.composite
def csv_files(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """A file's bytes, and options with which pyarrow reads it."""
    columns = draw(st.integers(1, 3))
    ends = draw(st.sampled_from([["\n"], ["\r\n"], ["\n", "\r\n", "\r"]]))
    end = st.sampled_from(ends)
    lines = [",".join(draw(values) for _ in range(columns)) for _ in range(draw(st.integers(0, 12)))]
    head = ",".join(draw(st.sampled_from([name, f'"{name}"'])) for name in "abc"[:columns])
    skipped = draw(st.integers(0, 2))
    kind = draw(st.sampled_from(["head", "names", "numbered"]))
    reading: dict[str, Any] = {"skip_rows": skipped}
    if kind == "names":
        reading["column_names"] = list("xyz"[:columns])
    elif kind == "numbered":
        reading["autogenerate_column_names"] = True
    every = ["# no row"] * skipped + ([head] if kind == "head" else []) + lines
    text = "".join(line + draw(end) for line in every)
    if draw(st.booleans()):
        text = text.rstrip("\r\n")
    if draw(st.booleans()):
        text = "\ufeff" + text
    return text.encode(), {"read_options": pa.csv.ReadOptions(**reading)}


def whole(read: Any) -> pa.Table | None:
    """The table; None where pyarrow refuses the file."""
    try:
        return read()
    except pa.ArrowInvalid:
        return None


@quiet
@given(csv_files(), st.integers(1, 40), st.integers(1, 4))
def test_csv_in_parts_is_what_pyarrow_reads(
    tmp_path: Path, made: tuple[bytes, dict[str, Any]], split_bytes: int, slots: int
) -> None:
    text, options = made
    path = tmp_path / "1.csv"
    path.write_bytes(text)
    expected = whole(lambda: pa.csv.read_csv(io.BytesIO(text), **options))
    if expected is None:
        with pytest.raises(UsageError):
            read_in_parts("csv", path, split_bytes=64 * split_bytes, slots=slots, **options)
        return
    _, found = read_in_parts("csv", path, split_bytes=64 * split_bytes, slots=slots, **options)
    assert found.equals(expected), f"{found} is not {expected}"


rows = st.lists(
    st.fixed_dictionaries(
        {"n": st.one_of(st.none(), st.integers(-9, 9))},
        optional={"word": st.sampled_from(["a\nb", "", "ü"]), "deep": st.fixed_dictionaries({"x": st.booleans()})},
    ),
    min_size=1,
    max_size=12,
)


@quiet
@given(rows, line_ends.filter(lambda end: end != "\r"), st.booleans(), st.integers(1, 40), st.integers(1, 4))
def test_json_lines_in_parts_are_what_pyarrow_reads(  # noqa: PLR0917
    tmp_path: Path, made: list[dict[str, Any]], end: str, ends: bool, split_bytes: int, slots: int
) -> None:
    text = end.join(map(json.dumps, made)) + (end if ends else "")
    path = tmp_path / "1.json"
    path.write_text(text, newline="")
    expected = pa.json.read_json(io.BytesIO(text.encode()))
    _, found = read_in_parts("json", path, split_bytes=64 * split_bytes, slots=slots)
    assert found.equals(expected), f"{found} is not {expected}"


@quiet
@given(
    st.lists(st.integers(0, 50), min_size=0, max_size=8),
    st.booleans(),
    st.sampled_from([None, "zstd"]),
    st.integers(1, 2000),
    st.integers(1, 4),
)
def test_ipc_files_in_parts_are_what_pyarrow_reads(  # noqa: PLR0917
    tmp_path: Path, counts: list[int], encoded: bool, compression: str | None, split_bytes: int, slots: int
) -> None:
    words = pa.array(["a", "b", None, "c"] * 13)
    table = pa.table({"n": range(52), "word": words.dictionary_encode() if encoded else words})
    path = tmp_path / "1.arrow"
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for count in counts:
            writer.write_table(table.slice(0, count))
    with pa.ipc.open_file(path) as reader:
        expected, batches = reader.read_all(), reader.num_record_batches
    with pa.OSFile(str(path)) as opened:
        assert len(batch_bytes(opened)) == batches
    tasks, found = read_in_parts("ipc", path, split_bytes=split_bytes, slots=slots)
    assert found.equals(expected)
    assert min(batches, 2 * slots) <= tasks <= max(batches, 1)


def test_large_files_are_cut_into_tasks_and_small_ones_are_put_together(tmp_path: Path) -> None:
    lines = "".join(f"{n},{n * n}\n" for n in range(20_000))
    (tmp_path / "large.csv").write_text("n,square\n" + lines)
    tasks, found = read_in_parts("csv", tmp_path / "large.csv", split_bytes=64 << 10, slots=1)
    assert tasks > 3
    assert found["square"].to_pylist() == [n * n for n in range(20_000)]
    (tmp_path / "small").mkdir()
    for index in range(100):
        (tmp_path / "small" / f"{index}.csv").write_text(f"n\n{index}\n")
    tasks, found = read_in_parts("csv", tmp_path / "small", split_bytes=64 << 20, slots=2)
    assert tasks == 4
    assert sorted(found["n"].to_pylist()) == list(range(100))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("1.csv.gz", {}),
        ("1.csv", {"parse_options": pa.csv.ParseOptions(newlines_in_values=True)}),
        ("1.csv", {"read_options": pa.csv.ReadOptions(encoding="utf-16")}),
        ("1.csv", {"read_options": pa.csv.ReadOptions(skip_rows_after_names=1)}),
    ],
)
def test_file_whose_lines_may_be_no_rows_is_read_whole(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    text = "n,word\n" + "".join(f'{n},"a {n}"\n' for n in range(500))
    reading = options.get("read_options")
    with pa.output_stream(tmp_path / name) as sink:  # which compresses by the name
        sink.write(text.encode(reading.encoding if reading else "utf8"))
    tasks, found = read_in_parts("csv", tmp_path / name, **options)
    assert tasks == 1
    assert found.equals(pa.csv.read_csv(tmp_path / name, **options))


@pytest.mark.parametrize("cut", range(1, 60))
def test_quoted_line_end_never_makes_other_rows_wherever_the_file_is_cut(tmp_path: Path, cut: int) -> None:
    text = 'n,word\n1,"a\n2,b\n"\n3,"c"\n4,d\n5,"e\nf"'
    path = tmp_path / "1.csv"
    path.write_text(text)
    expected = pa.csv.read_csv(path)
    try:
        _, found = read_in_parts("csv", path, split_bytes=64 * cut, slots=1)
    except UsageError as error:
        assert "goes over a line's end" in str(error) and "newlines_in_values=True" in str(error)
    else:
        assert found.equals(expected)
    parsing = pa.csv.ParseOptions(newlines_in_values=True)
    assert read_in_parts("csv", path, split_bytes=64 * cut, parse_options=parsing)[1].equals(expected)


@pytest.mark.parametrize(
    ("line", "parsing", "is_open"),
    [
        ('a,"b', {}, True),
        ('a,"b""', {}, True),
        ('a,"b"""', {}, False),
        ('a,5",c', {}, False),
        ('a,"b"c"', {}, False),
        ('"a","', {}, True),
        ('a,"b""', {"double_quote": False}, False),
        ("a,b\\", {"escape_char": "\\"}, True),
        ("a,b\\\\", {"escape_char": "\\"}, False),
        ('a,"b\\"', {"escape_char": "\\"}, True),
        ('a;"b', {}, False),
        ('a;"b', {"delimiter": ";"}, True),
        ('a,"b', {"quote_char": False}, False),
        ("a,'b", {"quote_char": "'"}, True),
    ],
)
def test_value_that_a_line_leaves_open_is_what_pyarrow_goes_on_with(
    line: str, parsing: dict[str, Any], is_open: bool
) -> None:
    options = pa.csv.ParseOptions(**parsing)
    assert ends_within_value(line.encode() + b"\r\n", options) == is_open
    columns = 1 + line.count(parsing.get("delimiter", ","))
    names = pa.csv.ReadOptions(column_names=[str(i) for i in range(columns)])
    second = (line + "\n" + parsing.get("delimiter", ",").join("x" * columns) + "\n").encode()
    read = whole(lambda: pa.csv.read_csv(io.BytesIO(second), read_options=names, parse_options=options))
    assert (read is not None and read.num_rows == 2) == (not is_open)


def test_value_that_contradicts_the_types_names_file_line_and_remedy(tmp_path: Path) -> None:
    lines = [str(n) for n in range(5000)]
    lines[3210] = "many"
    path = tmp_path / "1.csv"
    path.write_text("n\n\n" + "\n".join(lines))
    pinned = pa.csv.ReadOptions(block_size=1000)
    words = r"1.csv as csv: In CSV column #0: line 3,213: .*invalid value 'many'.*column_types=\{\.\.\.\}"
    with pytest.raises(UsageError, match=words):
        read_in_parts("csv", path, split_bytes=64 << 10, read_options=pinned)
    remedy = pa.csv.ConvertOptions(column_types={"n": pa.string()})
    _, found = read_in_parts("csv", path, split_bytes=64 << 10, read_options=pinned, convert_options=remedy)
    assert found["n"].to_pylist() == lines
    path = tmp_path / "1.json"
    path.write_text("\n\n" + "".join(f'{{"n": {json.dumps(n if n != 3210 else "x")}}}\n' for n in range(5000)))
    words = r"1.json as json: .*Column\(/n\) changed from number to string in line 3,213; .*pass schema="
    with pytest.raises(UsageError, match=words):
        read_in_parts("json", path, split_bytes=64 << 10, read_options=pa.json.ReadOptions(block_size=1000))


@pytest.mark.parametrize("at", [0, 1, 2, 5, 9])
def test_damaged_footer_is_refused_by_name(tmp_path: Path, at: int) -> None:
    path = tmp_path / "1.arrow"
    with pa.ipc.new_file(path, pa.schema([("n", pa.int64())])) as writer:
        writer.write_table(pa.table({"n": [1]}))
    text = path.read_bytes()
    end = len(text) - 10
    path.write_bytes(text[: end + min(at, 4) - 4] + b"\xff\xff\xff\x7f" + text[end + min(at, 4) :])
    with pytest.raises(UsageError, match=r"1.arrow cannot be read as ipc"):
        describe_source(SourceRequest(format="ipc", paths=(str(path),)))


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    with InProcessCluster(2, **{"jobs.split_bytes": 4096}) as opened:
        yield opened


def test_agents_share_one_file_of_each_format(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = pa.table({"n": range(5000), "word": [f"word {n % 7}" for n in range(5000)]})
    pa.csv.write_csv(table, tmp_path / "1.csv")
    (tmp_path / "1.json").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    with pa.ipc.new_file(tmp_path / "1.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    session = cluster.connect()
    for data in (
        session.read_csv(tmp_path / "1.csv"),
        session.read_json(tmp_path / "1.json"),
        session.read_ipc(tmp_path / "1.arrow"),
    ):
        with data.repartition("n").run() as result:
            assert in_order(result.to_table()) == in_order(table)
            assert result.receipt.exact
            assert result.stats.stages[0].tasks_done > 4
