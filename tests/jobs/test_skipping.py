"""A filter above a scan leaves out files and row groups that cannot hold a row of the answer, and changes no answer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyarrow import compute as pc

from sabot.client.session import Session
from sabot.dataflow.dataset import Dataset
from sabot.errors import UsageError

from .in_process import InProcessCluster
from .rows import in_order

GROUPS, GROUP_ROWS = 10, 20
TABLE = pa.table(
    {
        "v": pa.array(range(GROUPS * GROUP_ROWS), pa.int64()),
        "x": pa.array([index / 2 for index in range(GROUPS * GROUP_ROWS)]),
        "word": [f"word {index:05}" for index in range(GROUPS * GROUP_ROWS)],
    }
)


@pytest.fixture
def session() -> Iterator[Session]:
    with InProcessCluster(2) as cluster:
        yield cluster.connect()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Two files of five row groups each, in folders of their own."""
    half = TABLE.num_rows // 2
    for index in range(2):
        path = tmp_path / "t" / f"half={index}" / "0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(TABLE.slice(index * half, half), path, row_group_size=GROUP_ROWS)
    return str(tmp_path / "t")


def left(dataset: Dataset) -> tuple[int, int]:
    """Files and row groups that are read, by what explain() says."""
    text = dataset.explain()
    found = re.search(r"from  (\d+)(?: of 2)? parquet file\(s\), (?:(\d+) of 10 row groups)?", text)
    assert found is not None, text
    return int(found[1]), int(found[2] or GROUPS)


v, x, half = pc.field("v"), pc.field("x"), pc.field("half")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (v < 25, (1, 2)),
        ((v >= 95) & (v < 105), (2, 2)),
        (v == 150, (1, 1)),
        (v.isin([5, 190]), (2, 2)),
        (v < 0, (0, 0)),
        (pc.field("word") == "word 00150", (1, 1)),
        (half == 1, (1, 5)),
        ((half == 1) & (v < 125), (1, 2)),
        ((half == 0) | (v >= 180), (2, 6)),
        (x < 10, (1, 1)),
        (v.is_null(), (0, 0)),
        (v + 1 == 151, (2, 10)),
        (v > -1, (2, 10)),
    ],
)
def test_only_row_groups_that_may_pass_are_read(
    session: Session, folder: str, expression: pc.Expression, expected: tuple[int, int]
) -> None:
    dataset = session.read_parquet(folder).filter(expression)
    assert left(dataset) == expected
    with dataset.run() as result:
        assert in_order(result.to_table()) == in_order(
            ds.dataset(folder, partitioning="hive").to_table(filter=expression)
        )
        assert result.receipt.exact
    assert in_order(session.read_parquet(folder, filters=expression).to_table()) == in_order(dataset.to_table())


def test_filters_reach_the_scan_through_what_keeps_rows_and_columns(session: Session, folder: str) -> None:
    data = session.read_parquet(folder)
    assert left(data.select(["v", "x"]).append_column("w", v * 2).filter(v < 20).filter(pc.field("w") > 1)) == (1, 1)
    assert left(data.sort_by("x").filter(v < 20)) == (1, 1)
    assert left(data.repartition("v").filter(v < 20).select(["x"])) == (1, 1)
    assert left(data.filter(v < 20).group_by("half").aggregate([("x", "sum")])) == (1, 1)
    assert left(data.filter(half == 0).join(data.filter(half == 1).rename_columns({"x": "y"}), "v")) == (1, 5)
    assert left(session.read_parquet(folder, filters=[("v", "<", 20)], columns=["x"])) == (1, 1)


def test_filters_reach_the_scan_under_the_names_that_columns_have_there(session: Session, folder: str) -> None:
    data = session.read_parquet(folder)
    renamed = data.rename_columns({"v": "u", "x": "v"}).filter(v < 5)
    assert left(renamed) == (1, 1)
    assert renamed.to_table()["u"].to_pylist() == list(range(10))
    assert left(data.group_by("half").aggregate([("v", "max")]).filter(half == 1)) == (1, 5)


def test_filters_reach_both_scans_below_a_join(session: Session, folder: str) -> None:
    data = session.read_parquet(folder)
    other = data.select(["v", "word"]).rename_columns(["key", "text"])
    joined = data.join(other, "v", "key", join_type="inner").filter(
        (v < 25) & (x < 5) & (pc.field("text") > "word 00003")
    )
    groups = re.findall(r"(\d+) of 10 row groups", joined.explain())
    assert groups == ["1", "2"]  # by v and x, and by key
    assert sorted(joined.to_table()["v"].to_pylist()) == [4, 5, 6, 7, 8, 9]
    outer = other.join(data, "key", "v", join_type="left outer").filter(x < 5)
    assert re.findall(r"(\d+) of 10 row groups", outer.explain()) == []
    assert sorted(outer.to_table()["key"].to_pylist()) == list(range(10))


def test_filters_do_not_reach_through_what_changes_rows_or_columns(session: Session, folder: str) -> None:
    data = session.read_parquet(folder)
    assert left(data.head(30).filter(v >= 180)) == (2, 10)
    assert left(data.append_column("w", v * 2).filter(pc.field("w") < 5)) == (2, 10)
    assert left(data.group_by("half").aggregate([("v", "max")]).filter(pc.field("v_max") > 150)) == (2, 10)


def test_nan_is_found_where_statistics_do_not_tell_of_it(session: Session, tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1.0, math.nan, 2.0], "n": [1, 2, 3]}), tmp_path / "0.parquet")
    data = session.read_parquet(tmp_path)
    assert data.filter(~(x <= 5)).to_table()["n"].to_pylist() == [2]
    assert data.filter(pc.is_nan(x)).to_table()["n"].to_pylist() == [2]
    pq.write_table(pa.table({"x": [5.0, math.nan], "n": [1, 2]}), tmp_path / "0.parquet")
    assert session.read_parquet(tmp_path).filter(x != 5).to_table()["n"].to_pylist() == [2]


def test_row_groups_of_another_type_are_read(session: Session, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": pa.array([1, 9], pa.int64())}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"n": ["7", "8"]}), tmp_path / "1.parquet")
    data = session.read_parquet(tmp_path).filter(pc.field("n") > 6)
    assert sorted(data.to_table()["n"].to_pylist()) == [7, 8, 9]
    strings = session.read_parquet(tmp_path, schema=pa.schema([("n", pa.string())])).filter(pc.field("n") > "8")
    assert strings.to_table()["n"].to_pylist() == ["9"]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_text_files_are_left_out_by_their_folders(session: Session, tmp_path: Path, kind: str) -> None:
    for year in (2023, 2024):
        path = tmp_path / f"year={year}" / f"a.{kind}"
        path.parent.mkdir()
        path.write_text(f"n\n{year}\n" if kind == "csv" else f'{{"n": {year}}}\n')
    data = getattr(session, f"read_{kind}")(tmp_path).filter(pc.field("year") == 2024)
    assert f"from  1 of 2 {kind} file(s)" in data.explain()
    assert data.to_table() == pa.table({"n": [2024], "year": pa.array([2024], pa.int32())})


def test_filter_that_does_not_fit_is_refused_by_name(session: Session, folder: str) -> None:
    with pytest.raises(UsageError, match=r"filters= takes an expression"):
        session.read_parquet(folder, filters="v < 5")
    with pytest.raises(UsageError, match="no column 'w'"):
        session.read_parquet(folder, filters=[("w", "<", 5)])


def test_rows_into_tasks_are_those_of_the_row_groups_left(session: Session, folder: str) -> None:
    with session.read_parquet(folder).filter((half == 1) & (v < 125)).repartition("v").run() as result:
        assert result.receipt.exact
        assert result.num_rows == 25
