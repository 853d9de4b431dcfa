"""Every operation against pyarrow's own, over simulated partitions."""

from __future__ import annotations

import collections

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.interpreter import InterpreterSession
from tests.dataflow.tables import EVERY_KEY, KEY_VALUES, every_value, sessions_arguments, tables

FLIGHTS = pa.table(
    {
        "carrier": ["AA", "UA", None, "AA", "DL", "UA", "AA"],
        "tail": ["n1", "n2", "n3", None, "n1", "n2", "n9"],
        "delay": pa.array([5, -3, None, 61, 0, 12, None], pa.int32()),
        "miles": [100.5, 200.25, 300.0, None, float("nan"), 50.0, 75.0],
    }
)


@given(tables(), sessions_arguments())
def test_filter_answers_as_pyarrow(table: pa.Table, arguments: dict[str, int]) -> None:
    expression = (pc.field("i") > 2) | pc.is_null(pc.field("k"))
    answer = InterpreterSession(**arguments).from_table(table).filter(expression).to_table()
    assert_same_rows(answer, table.filter(expression))


def test_filter_drops_rows_where_the_expression_is_null() -> None:
    expression = pc.field("delay") > 0
    answer = InterpreterSession().from_table(FLIGHTS).filter(expression).to_table()
    assert_same_rows(answer, FLIGHTS.filter(expression))
    assert answer.num_rows == 3


@pytest.mark.parametrize("columns", [["miles"], ["tail", "carrier"], [2, 0], [-1], ["tail", "tail"]])
def test_select_answers_as_pyarrow(columns: list[str | int]) -> None:
    answer = InterpreterSession().from_table(FLIGHTS).select(columns).to_table()
    assert_same_rows(answer, FLIGHTS.select([i % 4 if isinstance(i, int) else i for i in columns]))


@pytest.mark.parametrize("columns", ["tail", ["tail", "miles"]])
def test_drop_columns_answers_as_pyarrow(columns: str | list[str]) -> None:
    answer = InterpreterSession().from_table(FLIGHTS).drop_columns(columns).to_table()
    assert_same_rows(answer, FLIGHTS.drop_columns(columns))


@pytest.mark.parametrize("names", [["a", "b", "c", "d"], {"tail": "n"}, {"tail": "carrier2", "delay": "tail"}, {}])
def test_rename_columns_answers_as_pyarrow(names: list[str] | dict[str, str]) -> None:
    answer = InterpreterSession().from_table(FLIGHTS).rename_columns(names).to_table()
    assert_same_rows(answer, FLIGHTS.rename_columns(names))


def test_append_column_computes_per_row_and_broadcasts_scalars() -> None:
    dataset = InterpreterSession().from_table(FLIGHTS)
    answer = dataset.append_column("late", pc.field("delay") * 2).append_column("one", pc.scalar(1)).to_table()
    expected = FLIGHTS.append_column("late", pc.multiply(FLIGHTS["delay"], pa.scalar(2, pa.int32())))
    assert answer["late"].to_pylist() == expected["late"].to_pylist()
    assert answer["one"].to_pylist() == [1] * FLIGHTS.num_rows
    assert answer.column_names == [*FLIGHTS.column_names, "late", "one"]


def test_append_column_with_a_field_casts_to_its_type() -> None:
    dataset = InterpreterSession().from_table(FLIGHTS)
    answer = dataset.append_column(pa.field("d", pa.float32()), pc.field("delay")).to_table()
    assert_same_rows(answer, FLIGHTS.append_column("d", FLIGHTS["delay"].cast(pa.float32())))


def test_append_column_may_repeat_a_name_as_pyarrow_may() -> None:
    answer = InterpreterSession().from_table(FLIGHTS).append_column("tail", pc.field("carrier")).to_table()
    assert_same_rows(answer, FLIGHTS.append_column("tail", FLIGHTS["carrier"]))


@given(tables(), sessions_arguments(), st.sampled_from(["k", "h", "n", "i"]), st.booleans(), st.booleans())
def test_sort_by_answers_as_pyarrow(
    table: pa.Table, arguments: dict[str, int], column: str, descending: bool, nulls_first: bool
) -> None:
    key = (column, "descending" if descending else "ascending", "at_start" if nulls_first else "at_end")
    decoded = table.set_column(0, "k", _decoded(table["k"])).set_column(1, "h", _decoded(table["h"]))
    rows = pc.sort_indices(decoded, sort_keys=[key, ("i", "ascending")])
    answer = InterpreterSession(**arguments).from_table(table).sort_by([key, ("i", "ascending")]).to_table()
    assert_same_rows(answer, table.take(rows), ordered=True)


@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("kind", EVERY_KEY, ids=str)
def test_every_type_of_key_sorts_by_its_values(kind: pa.DataType, order: str) -> None:
    table = every_value(kind)
    answer = InterpreterSession().from_table(table).sort_by([("k", order), ("i", "descending")]).to_table()
    decoded = table.set_column(0, "k", _decoded(table["k"]))
    rows = pc.sort_indices(decoded, sort_keys=[("k", order), ("i", "descending")])
    assert_same_rows(answer, table.take(rows), ordered=True)


def test_every_key_type_has_its_values() -> None:
    assert EVERY_KEY.keys() == KEY_VALUES.keys()


def test_sort_by_keeps_the_order_of_equal_rows() -> None:
    table = pa.table({"k": [1, 0] * 10, "i": range(20)})
    answer = InterpreterSession(pieces=1).from_table(table).sort_by("k").to_table()
    assert_same_rows(answer, table.sort_by("k"), ordered=True)


@given(tables(), sessions_arguments(), st.integers(0, 6))
def test_head_of_a_sort_is_exact(table: pa.Table, arguments: dict[str, int], rows: int) -> None:
    dataset = InterpreterSession(**arguments).from_table(table).sort_by([("i", "descending")])
    expected = table.sort_by([("i", "descending")]).slice(0, rows)
    assert_same_rows(dataset.head(rows).to_table(), expected, ordered=True)
    narrower = dataset.select(["i", "n"]).head(rows).append_column("j", pc.field("i") + 1).to_table()
    assert narrower["j"].to_pylist() == [i + 1 for i in expected["i"].to_pylist()]


@given(tables(), sessions_arguments(), st.integers(0, 20))
def test_head_without_a_sort_gives_that_many_rows_of_the_table(
    table: pa.Table, arguments: dict[str, int], rows: int
) -> None:
    answer = InterpreterSession(**arguments).from_table(table).head(rows).to_table()
    taken = answer["i"].to_pylist()
    assert len(set(taken)) == len(taken) == min(rows, table.num_rows)
    assert_same_rows(answer, table.take(pa.array(taken, pa.int64())))


def test_count_rows_counts_after_filters() -> None:
    dataset = InterpreterSession().from_table(FLIGHTS)
    assert dataset.count_rows() == 7
    assert dataset.filter(pc.field("carrier") == "AA").count_rows() == 3
    assert dataset.filter(pc.field("carrier") == "ZZ").count_rows() == 0
    assert dataset.join(dataset, "carrier", join_type="inner", right_suffix="_r").count_rows() == 14


@pytest.mark.parametrize("keys", [None, "carrier", ["carrier", "tail"]])
def test_repartition_keeps_every_row_and_puts_equal_keys_together(keys: str | list[str] | None) -> None:
    session = InterpreterSession()
    assert_same_rows(session.from_table(FLIGHTS).repartition(keys, 4).to_table(), FLIGHTS)
    partitions = session.results[0].partitions
    assert len(partitions) == 4
    if keys is not None:
        columns = [keys] if isinstance(keys, str) else keys
        places = collections.defaultdict(set)
        for place, partition in enumerate(partitions):
            for row in partition.select(columns).to_pylist():
                places[tuple(row.values())].add(place)
        assert all(len(found) == 1 for found in places.values())


def test_map_batches_sees_every_row_once_and_may_drop_batches() -> None:
    def late_only(batch: pa.RecordBatch) -> pa.RecordBatch | None:
        batch = batch.filter(pc.field("delay") > 0)
        return batch if batch.num_rows else None

    schema = FLIGHTS.schema
    answer = InterpreterSession().from_table(FLIGHTS).map_batches(late_only, schema=schema).to_table()
    assert_same_rows(answer, FLIGHTS.filter(pc.field("delay") > 0))


def test_map_batches_that_drops_everything_leaves_the_declared_columns() -> None:
    dataset = (
        InterpreterSession().from_table(FLIGHTS).map_batches(lambda batch: None, schema=pa.schema([("z", pa.int64())]))
    )
    assert_same_rows(dataset.to_table(), pa.table({"z": pa.array([], pa.int64())}))
    assert dataset.sort_by("z").to_table().num_rows == 0
    assert dataset.group_by([]).aggregate([("z", "sum"), ("z", "count")]).to_table().to_pylist() == [
        {"z_sum": None, "z_count": 0}
    ]


def test_map_batches_between_other_operations_sees_all_their_columns() -> None:
    seen = set()

    def double(batch: pa.RecordBatch) -> pa.RecordBatch:
        seen.add(tuple(batch.schema.names))
        return batch.append_column("double", pc.multiply(batch["delay"], 2))

    session = InterpreterSession()
    dataset = session.from_table(FLIGHTS).filter(pc.is_valid(pc.field("delay"))).map_batches(double)
    answer = dataset.group_by("carrier").aggregate([("double", "sum")]).to_table()
    filtered = FLIGHTS.filter(pc.is_valid(pc.field("delay")))
    expected = filtered.append_column("double", pc.multiply(filtered["delay"], pa.scalar(2)))
    assert_same_rows(answer, expected.group_by("carrier").aggregate([("double", "sum")]))
    assert seen <= {tuple(FLIGHTS.column_names)}


def test_operations_compose_over_several_shuffles() -> None:
    planes = pa.table({"tail": ["n1", "n2", "n4"], "year": pa.array([1999, 2004, 2010], pa.int16())})
    session = InterpreterSession()
    answer = (
        session.from_table(FLIGHTS)
        .filter(pc.field("carrier") != "DL")
        .join(session.from_table(planes), "tail", join_type="left outer")
        .group_by(["carrier", "year"])
        .aggregate([("miles", "mean"), ("delay", "max"), ([], "count_all")])
        .sort_by([("carrier", "ascending"), ("year", "descending")])
        .to_table()
    )
    expected = (
        FLIGHTS.filter(pc.field("carrier") != "DL")
        .join(planes, "tail", use_threads=False)
        .group_by(["carrier", "year"])
        .aggregate([("miles", "mean"), ("delay", "max"), ([], "count_all")])
        .sort_by([("carrier", "ascending"), ("year", "descending")])
    )
    assert_same_rows(answer, expected, ordered=True)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
