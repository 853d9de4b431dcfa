"""A million rows over real agents: every one is accounted for, and both sorts of morsels run everywhere."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import sabot

from .rows import make_table, write_files

ROWS = 1_200_000


@pytest.mark.parametrize("agents", [1, 2, 4])
def test_every_row_of_a_million_is_accounted_for(tmp_path: Path, agents: int) -> None:
    table = make_table(ROWS)
    folder = write_files(tmp_path / "t", table, files=8, row_group_rows=50_000)
    with sabot.LocalCluster(agents=agents, slots=1) as cluster:
        session = cluster.connect(progress=False)
        with session.read_parquet(folder).repartition("v").run() as result:
            assert result.receipt.exact
            assert (result.receipt.rows_in, result.receipt.rows_out, result.num_rows) == (ROWS, ROWS, ROWS)
            assert (result.receipt.wire_bytes > 0) == (agents > 1)
            values = pc.sort_indices(answer := result.to_table(), sort_keys=[("v", "ascending")])
            assert answer.take(values).equals(table)
        for slots in session.slot_stats().values():
            assert all(slot["local_morsels"] > 0 for slot in slots)
            assert all((slot["network_morsels"] > 0) == (agents > 1) for slot in slots)


def test_group_over_four_agents_equals_pyarrow(tmp_path: Path) -> None:
    table = make_table(ROWS).append_column("big", pa.array([i // 3 for i in range(ROWS)]))
    folder = write_files(tmp_path / "t", table, files=8, row_group_rows=50_000)
    grouping = [("v", "sum"), ("word", "count_distinct"), ([], "count_all")]
    with sabot.LocalCluster(agents=4, slots=1) as cluster:
        data = cluster.connect(progress=False).read_parquet(folder)
        for key in ("k", "big"):
            answer = data.group_by(key).aggregate(grouping).sort_by(key).to_table()
            assert answer.equals(table.group_by(key).aggregate(grouping).sort_by(key))
