"""Partitions that are too large to be worked on at once: sorted, grouped and joined by parts, or refused by name."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.agent.coordination.range_choice import RangeRule
from sabot.agent.tasks import large_steps
from sabot.agent.tasks.large_steps import LargeSteps
from sabot.client.session import Session
from sabot.dataflow import sorting
from sabot.errors import LimitReached
from tests.dataflow.comparing import assert_same_rows

from .in_process import InProcessCluster
from .rows import write_files

ROWS = 12_000
SORT_BYTES = 280_000  # of which twice as much may be sort columns and their order
PART_BYTES = 40_000
JOIN_TYPES = [
    "inner",
    "left outer",
    "right outer",
    "full outer",
    "left semi",
    "right semi",
    "left anti",
    "right anti",
]


@pytest.fixture(scope="module", autouse=True)
def every_sort_has_ranges() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "SORTED_BY_ONE_BYTES_MAX", -1)
        yield


def work_on(cluster: InProcessCluster, part_bytes: int) -> None:
    """Partitions with more bytes are large from now on."""
    for agent in cluster.agents:
        runner = agent.driver._state._runner
        runner._limits = replace(runner._limits, partition_bytes_max=part_bytes)


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    limits = {
        "slots.morsel_bytes": 4096,
        "shuffle.scatter_bytes_max": 65536,
        "jobs.split_bytes": 65536,
        "jobs.partitions_per_slot": 1,
    }
    with InProcessCluster(2, slots=1, **limits) as running:
        for agent in running.agents:
            agent.driver._starter.ranges = RangeRule(bytes_max=1 << 30)
        work_on(running, PART_BYTES)
        yield running
        running.check_nothing_held()


@pytest.fixture
def session(cluster: InProcessCluster) -> Iterator[Session]:
    with cluster.connect(broadcast_bytes_max=0) as session:
        yield session


@pytest.fixture
def sorting_session(cluster: InProcessCluster, session: Session) -> Session:
    work_on(cluster, SORT_BYTES)
    return session


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done by parts."""
    done: list[str] = []

    def note(name: str) -> None:
        real = getattr(LargeSteps, name)

        def noted(self: LargeSteps, *arguments: Any) -> Any:
            done.append(name)
            return real(self, *arguments)

        monkeypatch.setattr(LargeSteps, name, noted)

    for name in ("sorted", "grouped", "joined", "_folded", "_probed"):
        note(name)
    return done


def make_table(hot: float = 0.0, rows: int = ROWS) -> pa.Table:
    rng = random.Random(7)
    keys = [500 if rng.random() < hot else None if rng.random() < 0.02 else rng.randrange(1000) for _ in range(rows)]
    return pa.table(
        {
            "k": pa.array(keys, pa.int64()),
            "v": pa.array(range(rows), pa.int64()),
            "f": pa.array([rng.choice([float("nan"), None, rng.random()]) for _ in range(rows)]),
            "s": pa.array([rng.choice(["", "a", "ab", None, "x" * 60]) for _ in range(rows)]),
            "d": pa.array([rng.choice("abc") for _ in range(rows)]).dictionary_encode(),
        }
    )


@pytest.mark.parametrize("hot", [0.0, 0.9])
@pytest.mark.parametrize("keys", [[("k", "ascending")], [("d", "descending"), ("s", "ascending")]], ids=str)
def test_a_large_range_is_sorted_by_parts_and_equal_rows_keep_their_order(
    sorting_session: Session, parts: list[str], hot: float, keys: list[Any], tmp_path: Path
) -> None:
    table = make_table(hot)
    dataset = sorting_session.read_parquet(
        write_files(tmp_path / "t", table.set_column(4, "d", table["d"].cast(pa.string())))
    )
    with dataset.sort_by(keys).run() as result:
        plain = table.set_column(4, "d", table["d"].cast(pa.string()))
        assert_same_rows(result.to_table(), plain.take(pc.sort_indices(plain, sort_keys=keys)), ordered=True)
        assert result.receipt.exact
    assert "sorted" in parts


def test_a_large_range_with_a_dictionary_is_sorted_by_parts(sorting_session: Session, parts: list[str]) -> None:
    table, keys = make_table(), [("d", "ascending"), ("v", "descending")]
    answer = sorting_session.from_table(table).sort_by(keys).to_table()
    plain = table.set_column(4, "d", table["d"].cast(pa.string()))
    assert answer["v"].equals(plain["v"].take(pc.sort_indices(plain, sort_keys=keys)))
    assert answer.schema.equals(table.schema)
    assert "sorted" in parts


@pytest.mark.parametrize("what", ["sort", "group", "repartition"])
def test_a_large_partition_that_two_stages_have_sent_is_whole(
    cluster: InProcessCluster, session: Session, parts: list[str], what: str
) -> None:
    work_on(cluster, SORT_BYTES if what == "sort" else PART_BYTES)
    table = make_table().drop_columns("d")
    halves = [session.from_table(half) for half in (table.slice(0, ROWS // 2), table.slice(ROWS // 2))]
    rows = halves[0].union(halves[1])
    job, expected = {
        "sort": (rows.sort_by("k"), table.sort_by("k")),
        "group": (
            rows.group_by(["k", "v"]).aggregate([("s", "list")]),
            table.group_by(["k", "v"], use_threads=False).aggregate([("s", "list")]),
        ),
        "repartition": (rows.repartition(["k"], 1).filter(pc.field("v") >= 0), table),
    }[what]
    with job.run() as result:
        assert_same_rows(result.to_table(), expected, ordered=what == "sort")
        assert result.receipt.exact
    assert set(parts) == {"sort": {"sorted"}, "group": {"grouped"}, "repartition": set()}[what]


def test_sort_columns_that_are_too_large_alone_are_refused_by_name(sorting_session: Session) -> None:
    table = pa.table({"text": [f"{row:0100}" for row in range(ROWS)], "v": range(ROWS)})
    with pytest.raises(LimitReached, match=r"sort column 'text'.*raise memory\.bytes_max"):
        sorting_session.from_table(table).sort_by("text").to_table()


WHOLE = [("v", "list"), ("f", "approximate_median"), ("s", "count")]
FINAL = [("v", "sum"), ("f", "variance"), ("s", "max"), ([], "count_all")]


@pytest.mark.parametrize("aggregations", [WHOLE, FINAL], ids=["whole", "final"])
@pytest.mark.parametrize("keys", [["k"], ["k", "d"]], ids=str)
def test_a_large_partition_is_grouped_by_parts_of_its_keys(
    session: Session, parts: list[str], keys: list[str], aggregations: list[Any]
) -> None:
    table = make_table(rows=ROWS if aggregations is WHOLE else 2 * ROWS)
    table = table.set_column(0, "k", pc.add(table["k"], pc.multiply(table["v"], 1000)))  # a group of nearly each row
    with session.from_table(table).group_by(keys).aggregate(aggregations).run() as result:
        assert_same_rows(result.to_table(), table.group_by(keys, use_threads=False).aggregate(aggregations))
        assert result.receipt.exact
    assert "grouped" in parts and "_folded" not in parts


def test_a_key_with_most_rows_is_grouped_some_rows_at_a_time(session: Session, parts: list[str]) -> None:
    table = make_table(hot=0.9)
    # What is grouped after a repartition is not grouped in part before it.
    rows = session.from_table(table).repartition(["k"], 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sabot.dataflow.planner.split_aggregation", lambda *_: None)
        answer = rows.group_by("k").aggregate([("v", "sum"), ("f", "max"), ("s", "min")]).to_table()
    assert_same_rows(answer, table.group_by("k").aggregate([("v", "sum"), ("f", "max"), ("s", "min")]))
    assert "_folded" in parts


def test_a_key_whose_rows_an_aggregate_needs_at_once_is_refused_by_name(session: Session) -> None:
    with pytest.raises(
        LimitReached, match=r"one value of key column 'k' that list has to have at once.*memory\.bytes_max"
    ):
        session.from_table(make_table(hot=0.9)).group_by("k").aggregate([("v", "list")]).to_table()


@pytest.mark.parametrize(
    ("join_type", "hot"), [*((kind, 0.8) for kind in JOIN_TYPES), ("inner", 0.0), ("full outer", 0.0)]
)
def test_large_partitions_are_joined_by_parts_of_their_keys(
    session: Session, parts: list[str], join_type: str, hot: float
) -> None:
    left, right = make_table(hot), make_table().select(["k", "v", "d"]).slice(0, 3000)
    if hot:  # one key's rows on one side are many, and few on the other
        kept = pc.or_(pc.not_equal(right["k"], 500), pc.less(right["v"], 10)).fill_null(True)
        right = right.filter(kept)
    right = right.rename_columns({"v": "w", "d": "e"})
    if join_type.startswith("right"):
        left, right = right.rename_columns({"k": "k"}), left
    job = session.from_table(left).join(session.from_table(right), "k", join_type=join_type)
    if join_type == "full outer" and hot:
        with pytest.raises(LimitReached, match=r"key column 'k' that a full outer join has to have at once"):
            job.to_table()
        return
    with job.run() as result:
        assert_same_rows(result.to_table(), left.join(right, "k", join_type=join_type))
        assert result.receipt.exact
    assert "joined" in parts
    assert ("_probed" in parts) == bool(hot)


def test_a_large_partition_that_no_step_asks_for_at_once_goes_on_in_order(session: Session, tmp_path: Path) -> None:
    table = make_table()
    dataset = session.read_parquet(write_files(tmp_path / "t", table.drop_columns("d")))
    with dataset.repartition(["k"], 2).filter(pc.field("v") >= 0).run() as result:
        assert result.receipt.exact
        answer = result.to_table()
    assert_same_rows(answer, table.drop_columns("d"))


def test_further_bits_of_the_hash_cut_a_partition_evenly() -> None:
    part = large_steps._Part(0, 64, 64)
    batch = pa.record_batch({"k": pa.array(range(100_000), pa.int64())})
    counts = [0] * 64
    for index in range(4):
        choice = large_steps._Choice(("k",), 4 * part.classes, index * 64, index * 64, (index + 1) * 64)
        for number, rows in choice.count(choice.choose(batch, (0, 0))):
            counts[number] += rows
    assert sum(counts) == 100_000
    assert max(counts) < 1.3 * 100_000 / 64
