"""Ranges, columns of partition numbers and broadcasts: rows go where pyarrow's order, their column or all say."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.errors import UsageError
from sabot.native import _native
from sabot.shuffle import RangePartitioning
from tests.rows import strategies as rows
from tests.rows.test_scatter import rows_by_partition, scatter

# What pyarrow itself can sort, so that it can be the judge; views it sorts as texts.
SORT_TYPES = [kind for kind in rows.FLAT_TYPES if kind not in (pa.month_day_nano_interval(), pa.null())]
PLAIN = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
ORDERS = st.tuples(st.sampled_from(["ascending", "descending"]), st.sampled_from(["at_start", "at_end"]))


def by_range(batch: pa.RecordBatch, partitioning: RangePartitioning, num_partitions: int) -> dict[int, list[Any]]:
    keys = list(partitioning.keys)
    options = {"partitioning": "range", "bounds": partitioning.bounds, "sum_column": batch.num_columns - 1}
    return rows_by_partition(scatter([batch], keys, num_partitions, **options))


@given(st.data(), st.lists(st.tuples(st.sampled_from(SORT_TYPES), ORDERS), min_size=1, max_size=3), st.integers(1, 6))
def test_ranges_one_after_the_other_are_in_the_order_of_pyarrow(
    data: st.DataObject, keys: list[tuple[pa.DataType, tuple[str, str]]], num_partitions: int
) -> None:
    batch = data.draw(rows.batches([kind for kind, _ in keys]))
    sorting = [(f"c{i}", *order) for i, (_, order) in enumerate(keys)]
    sample = data.draw(st.integers(0, batch.num_rows))
    plain = pa.table([pa.array(c, PLAIN.get(c.type, c.type)) for c in batch.columns], batch.schema.names)
    chosen = RangePartitioning.from_sample(plain.slice(0, sample), sorting, num_partitions)
    boundaries = chosen.boundaries.cast(pa.schema([batch.schema.field(name) for name in chosen.keys]))
    found = by_range(batch, RangePartitioning(chosen.sorting, boundaries), num_partitions)
    where = {row["id"]: partition for partition, members in found.items() for row in members}
    assert len(where) == batch.num_rows
    ordered = plain.sort_by(sorting)
    places = [where[id_] for id_ in ordered["id"].to_pylist()]
    assert places == sorted(places)
    keys_of = [rows.comparable(list(row.values())[1:]) for row in ordered.to_pylist()]
    for left, right in zip(range(len(places)), range(1, len(places)), strict=False):
        if keys_of[left] == keys_of[right]:
            assert places[left] == places[right]


@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("placement", ["at_start", "at_end"])
def test_zeros_meet_and_nan_stands_between_values_and_nulls(order: str, placement: str) -> None:
    values = [-math.inf, -1.5, -0.0, 0.0, 2.0, math.inf, math.nan, None]
    batch = pa.record_batch({"id": range(8), "x": pa.array(values, pa.float64())})
    for bound in [-1.5, 0.0, -0.0, 2.0, math.nan, None]:
        boundaries = pa.record_batch({"x": pa.array([bound], pa.float64())})
        found = by_range(batch, RangePartitioning((("x", order, placement),), boundaries), 2)
        ordered = pa.Table.from_batches([batch]).sort_by([("x", order, placement)])["id"].to_pylist()
        low = [row["id"] for row in found.get(0, [])]
        assert sorted(ordered[: len(low)]) == sorted(low)
        zeros = {2 in low, 3 in low}
        assert len(zeros) == 1


def test_equal_boundaries_make_an_empty_range() -> None:
    batch = pa.record_batch({"x": [1, 2, 2, 3]})
    chosen = RangePartitioning((("x", "ascending"),), pa.record_batch({"x": [2, 2]}))
    assert {p: [row["x"] for row in members] for p, members in by_range(batch, chosen, 3).items()} == {
        0: [1],
        2: [2, 2, 3],
    }


@pytest.mark.parametrize(
    ("turn", "places"), [((0, 0), [3]), ((0, 3), [1]), ((1, 3), [2]), ((2, 3), [3]), ((6, 7), [3])]
)
@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_rows_of_a_key_that_has_several_ranges_go_to_the_one_whose_turn_it_is(
    turn: tuple[int, int], places: list[int], kind: pa.DataType
) -> None:
    batch = pa.record_batch({"id": range(5), "x": pa.array([1, 5, 5, 6, 9], pa.int64()).cast(kind)})
    boundaries = pa.record_batch({"x": pa.array([5, 5, 5, 9], pa.int64()).cast(kind)})
    bounds = RangePartitioning((("x", "ascending"),), boundaries).bounds
    found = rows_by_partition(scatter([batch], ["x"], 5, partitioning="range", bounds=bounds, tie_turn=turn))
    where = {row["id"]: partition for partition, members in found.items() for row in members}
    assert [where[row] for row in (1, 2)] == places * 2
    assert (where[0], where[3], where[4]) == (0, 3, 4)


def test_all_rows_go_to_one_partition_and_to_none_that_is_not_there() -> None:
    batch = pa.record_batch({"id": range(5)})
    found = rows_by_partition(scatter([batch], [], 3, partitioning="one", one_partition=2))
    assert {partition: len(members) for partition, members in found.items() if members} == {2: 5}
    for wrong in (-1, 3):
        with pytest.raises(UsageError, match="there are 3"):
            scatter([batch], [], 3, partitioning="one", one_partition=wrong)


def test_sample_is_cut_into_ranges_of_as_many_rows() -> None:
    table = pa.table({"x": [(7 * i) % 1000 for i in range(1000)]})
    chosen = RangePartitioning.from_sample(table, [("x", "descending")], 4)
    assert chosen.boundaries["x"].to_pylist() == [749, 499, 249]


@pytest.mark.parametrize(
    ("sorting", "boundaries", "message"),
    [
        ([("x", "ascending")], {"x": [2, 1]}, "not in the order of the sort keys"),
        ([("x", "descending")], {"x": [1, 2]}, "not in the order of the sort keys"),
        ([("x", "ascending")], {"x": [[1], [2]]}, "values of type list.* have no order"),
        ([("x", "ascending")], {"x": [1], "y": [2]}, "RecordBatch of the columns"),
        ([("x", "up")], {"x": [1]}, "'ascending' or 'descending'"),
        ([("x", "ascending")], {"x": ["a"]}, "of type int64, the boundaries of its ranges of type string"),
        ([("x", "ascending")], {"x": [1, 2, 3]}, "at most one boundary less"),
    ],
)
def test_wrong_ranges_are_usage_errors(sorting: list[Any], boundaries: dict[str, Any], message: str) -> None:
    batch = pa.record_batch({"x": [1, 2]})
    with pytest.raises(UsageError, match=message):
        by_range(batch, RangePartitioning(tuple(sorting), pa.record_batch(boundaries)), 3)


def test_column_names_each_rows_partition() -> None:
    batch = pa.record_batch({"p": pa.array([2, 0, 2, 1], pa.int32()), "x": ["a", "b", "c", "d"]})
    chunks = scatter([batch.slice(0, 1), batch.slice(1)], ["p"], 3, partitioning="column", sum_column=1)
    found = {p: [row["x"] for row in members] for p, members in rows_by_partition(chunks).items()}
    assert found == {0: ["b"], 1: ["d"], 2: ["a", "c"]}
    assert sum(extent[2] for chunk in chunks for extent in chunk[2]) % 2**64 == _native.content_sum(batch, ["p"], 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([0, 3], pa.int32()), "names partition 3 for a row, where there are 3"),
        (pa.array([0, -1], pa.int32()), "names partition -1"),
        (pa.array([0, None], pa.int32()), "names partition null"),
        (pa.array([0, 1], pa.int64()), "of type int64. Cast it to int32"),
    ],
)
def test_column_without_a_partition_for_every_row_is_a_usage_error(values: pa.Array, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        scatter([pa.record_batch({"p": values})], ["p"], 3, partitioning="column")


@given(rows.batches(), st.lists(st.integers(0, 40), max_size=3), st.integers(1, 4), st.integers(1, 3000))
def test_broadcast_gives_every_partition_every_row_in_order(
    batch: pa.RecordBatch, points: list[int], num_partitions: int, chunk_bytes_max: int
) -> None:
    options = {"partitioning": "broadcast", "chunk_bytes_max": chunk_bytes_max}
    chunks = scatter(rows.cut(batch, points), [], num_partitions, **options)
    whole = rows.comparable(batch.to_pylist())
    expected = dict.fromkeys(range(num_partitions), whole) if batch.num_rows else {}
    assert rows.comparable(rows_by_partition(chunks)) == expected
    total = sum(extent[2] for chunk in chunks for extent in chunk[2]) % 2**64
    assert total == num_partitions * _native.content_sum(batch, [], 0) % 2**64
