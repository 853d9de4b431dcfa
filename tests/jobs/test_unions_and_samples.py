"""Unions and samples on agents: what needs more than the plan."""

from __future__ import annotations

import collections
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.dataflow.comparing import assert_same_rows
from tests.jobs.in_process import InProcessCluster


def test_files_and_tables_unite_join_and_are_sampled_as_planned(tmp_path: Path) -> None:
    rows = pa.table({"k": [n % 7 for n in range(3000)], "x": range(3000)})
    for index in range(3):
        pq.write_table(rows.slice(1000 * index, 1000), tmp_path / f"{index}.parquet", row_group_size=300)
    more = pa.table({"k": [1, 2, 99], "x": [-1, -2, None]})
    both = pa.concat_tables([rows, more])
    with InProcessCluster(2) as cluster:
        session = cluster.connect()
        dataset = session.read_parquet(tmp_path).union(session.from_table(more))
        assert dataset.count_rows() == 3003
        assert_same_rows(dataset.to_table(), both)
        with dataset.group_by("k").aggregate([("x", "sum"), ([], "count_all")]).run() as result:
            assert_same_rows(result.to_table(), both.group_by("k").aggregate([("x", "sum"), ([], "count_all")]))
            assert result.receipt.exact
            assert len(result.receipt.shuffles) == 2
        names = session.from_table(pa.table({"k": [1, 99], "name": ["one", "other"]}))
        joined = dataset.join(names, "k", join_type="inner").to_table()
        expected = both.filter(pc.is_in(both["k"], pa.array([1, 99])))
        assert collections.Counter(joined["x"].to_pylist()) == collections.Counter(expected["x"].to_pylist())

        sample = dataset.sample(0.1, seed=4)
        once = sorted(sample.to_table()["x"].fill_null(-9).to_pylist())
        assert 200 < len(once) < 400
        assert sorted(sample.to_table()["x"].fill_null(-9).to_pylist()) == once
        exact = dataset.sample(num_rows=100, seed=4).to_table()
        assert exact.num_rows == 100
        assert set(exact["x"].to_pylist()) <= set(both["x"].to_pylist())
        cluster.check_nothing_held()
