"""Sorts by ranges over agents in this process: exactly pyarrow's answer, order of equal rows included."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings

from sabot.agent.coordination.range_choice import RangeRule
from sabot.agent.tasks.task_runner import Task, TaskRunner
from sabot.dataflow import sorting
from sabot.dataflow.dataset import Dataset
from sabot.dataflow.ranges import RangeShuffle
from sabot.wire.agent_pb2 import RunTaskReply
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.tables import tables
from tests.dataflow.test_sorting import decoded, sort_keys

from .in_process import InProcessCluster
from .rows import write_files

ROWS = 12_000
FINE = RangeRule(rows_min=1, bytes_max=32_768)


@pytest.fixture(scope="module", autouse=True)
def every_row_is_many() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "SORTED_BY_ONE_BYTES_MAX", -1)
        yield


@pytest.fixture(params=[1, 2, 4], ids=lambda count: f"{count} agents")
def cluster(request: pytest.FixtureRequest) -> Iterator[InProcessCluster]:
    limits = {"slots.morsel_bytes": 4096, "shuffle.scatter_bytes_max": 65536, "jobs.split_bytes": 65536}
    with InProcessCluster(request.param, slots=2, **limits) as running:
        for agent in running.agents:
            agent.driver._starter.ranges = FINE
        yield running
        running.check_nothing_held()


def test_any_table_sorts_as_pyarrow_sorts_it(cluster: InProcessCluster) -> None:
    session = cluster.connect()

    @settings(max_examples=15, deadline=None)
    @given(tables(rows_max=40), sort_keys())
    def ordered(table: pa.Table, keys: list[tuple[str, str, str]]) -> None:
        rows = pc.sort_indices(decoded(table.select(["k", "h", "n"])), sort_keys=keys)
        answer = session.from_table(table).sort_by(keys).to_table()
        assert_same_rows(answer, table.take(rows), ordered=True)

    ordered()


def make_table(hot: float = 0.0) -> pa.Table:
    rng = random.Random(7)
    keys = [500 if rng.random() < hot else rng.choice([None, rng.randrange(1000)]) for _ in range(ROWS)]
    return pa.table(
        {
            "k": pa.array(keys, pa.int64()),
            "f": pa.array([rng.choice([float("nan"), -0.0, 0.0, rng.random()]) for _ in range(ROWS)]),
            "s": pa.array(
                [rng.choice(["", "a", "ab", f"x{rng.randrange(50)}"] * 9 + ["y" * 1500]) for _ in range(ROWS)]
            ),
            "i": pa.array(range(ROWS), pa.int64()),
        }
    )


def in_order(table: pa.Table, keys: list[tuple[str, ...]]) -> pa.Table:
    return table.take(pc.sort_indices(table, sort_keys=keys))


@pytest.mark.parametrize(
    "keys",
    [
        [("k", "ascending")],
        [("k", "descending", "at_start"), ("s", "ascending")],
        [("f", "descending")],
        [("s", "descending"), ("f", "ascending", "at_start"), ("k", "ascending")],
    ],
    ids=str,
)
def test_files_sort_as_pyarrow_sorts_them(
    cluster: InProcessCluster, tmp_path: Path, keys: list[tuple[str, ...]]
) -> None:
    table = make_table()
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", table))
    with data.sort_by(keys).run() as result:
        assert_same_rows(result.to_table(), in_order(table, keys), ordered=True)
        assert result.receipt.exact


def twice(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.append_column("d", pc.multiply(batch["i"], 2))


def test_what_a_function_made_is_sorted_too(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = make_table()
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", table))
    answer = data.map_batches(twice, processes=False).sort_by([("k", "descending")]).to_table()
    expected = in_order(table, [("k", "descending")])
    assert answer["i"].equals(expected["i"])
    assert answer["d"].to_pylist() == [2 * i for i in expected["i"].to_pylist()]


def test_first_rows_and_no_rows(cluster: InProcessCluster, tmp_path: Path) -> None:
    table = make_table()
    data = cluster.connect().read_parquet(write_files(tmp_path / "t", table))
    ordered = data.sort_by([("k", "ascending")])
    first = ordered.head(50).to_table()
    assert first["i"].equals(in_order(table, [("k", "ascending")]).slice(0, 50)["i"])
    some = ordered.filter(pc.field("i") > 5000).head(300).to_table()
    expected = in_order(table, [("k", "ascending")])
    assert some["i"].to_pylist() == [i for i in expected["i"].to_pylist() if i > 5000][:300]
    empty = data.filter(pc.field("i") < 0).sort_by("k").to_table()
    assert empty.num_rows == 0 and empty.schema.equals(table.schema)


class RangesSeen:
    """How many rows were given to tasks that sort, by range."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.rows: dict[int, int] = {}
        run = TaskRunner.run

        def watched(runner: TaskRunner, task: Task) -> RunTaskReply:
            reply = run(runner, task)
            sources = task.stage.input.stage_ids if hasattr(task.stage.input, "stage_ids") else ()
            if any(isinstance(task.plan.stages[stage_id].output, RangeShuffle) for stage_id in sources):
                self.rows[task.task] = reply.rows_in
            return reply

        patch.setattr(TaskRunner, "run", watched)


@pytest.mark.parametrize("hot", [0.0, 0.9, 1.0])
def test_ranges_are_even_and_a_key_with_most_rows_has_several(
    cluster: InProcessCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hot: float
) -> None:
    seen = RangesSeen(monkeypatch)
    table = make_table(hot)
    files = write_files(tmp_path / "t", table, files=8)
    data: Dataset = cluster.connect().read_parquet(files)
    answer = data.select(["k", "i"]).sort_by("k").to_table()
    assert answer.equals(in_order(table.select(["k", "i"]), [("k", "ascending")]))
    assert len(seen.rows) > 4
    assert max(seen.rows.values()) <= ROWS / 2
