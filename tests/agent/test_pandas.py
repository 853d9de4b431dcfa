"""Agents leave pandas alone: pyarrow imports it where it can, and with it an agent would be a third larger."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import sabot
from sabot.client.session import Session
from sabot.dataflow.dataset import Dataset
from tests.agent.processes import Agents

ROWS = 1000
ORDERS = pa.table({"k": [i % 50 for i in range(ROWS)], "v": list(range(ROWS)), "s": [f"s{i % 7}" for i in range(ROWS)]})
SUMS = ORDERS.group_by("k").aggregate([("v", "sum")]).sort_by("k")


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    """A file that exists when something has tried to import pandas by PYTHONPATH, the folder it lies in."""
    folder = tmp_path / "without_pandas"
    folder.mkdir()
    marker = folder / "imported"
    (folder / "pandas.py").write_text(f"open({str(marker)!r}, 'w').close()\nraise ImportError('not for this agent')")
    return marker


def orders_of(session: Session, folder: Path) -> Dataset:
    folder.mkdir()
    for part in range(2):
        pq.write_table(ORDERS.slice(part * ROWS // 2, ROWS // 2), folder / f"{part}.parquet")
    return session.read_parquet(str(folder))


def test_jobs_without_a_filter_of_files_import_no_pandas(agents: Agents, tmp_path: Path, imported: Path) -> None:
    a = agents.start("a", environment={"PYTHONPATH": str(imported.parent)})
    with sabot.connect(a.control, progress=False) as session:
        orders = orders_of(session, tmp_path / "orders")
        sums = orders.group_by("k").aggregate([("v", "sum")])
        assert sums.sort_by("k").to_table().equals(SUMS)
        joined = orders.select(["k", "s"]).join(sums, keys="k", join_type="inner")
        assert joined.count_rows() == ROWS
        assert session.from_table(ORDERS).filter(pc.field("v") < 10).to_table().num_rows == 10
    assert not imported.exists()


def test_pruning_files_imports_pandas_where_it_is_installed(agents: Agents, tmp_path: Path, imported: Path) -> None:
    """pyarrow.dataset does, which knows their statistics: so the test above sees an import when there is one."""
    a = agents.start("a", environment={"PYTHONPATH": str(imported.parent)})
    with sabot.connect(a.control, progress=False) as session:
        assert orders_of(session, tmp_path / "orders").filter(pc.field("v") < 10).to_table().num_rows == 10
    assert imported.exists()
