"""What is said to a user whose call is wrong: at once, by name, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.dataflow.dataset import Dataset
from sabot.dataflow.plan import TableNode
from sabot.errors import UsageError
from tests.dataflow.interpreter import InterpreterSession

TABLE = pa.table(
    {
        "carrier": ["AA", "UA"],
        "delay": [1, 2],
        "miles": [1.0, 2.0],
        "stops": [["a"], ["b"]],
        "half": pa.array([1.0, 2.0], pa.float16()),
        "place": [{"x": 1}, {"x": 2}],
        "id": pa.array([b"0" * 16, b"1" * 16], pa.uuid()),
    }
)
SESSION = InterpreterSession()


def dataset() -> Dataset:
    return SESSION.from_table(TABLE)


def named(batch: pa.RecordBatch) -> Any:
    raise ValueError("no rows")


CASES: dict[str, tuple[Callable[[Dataset], object], str]] = {
    "filter, unknown column": (
        lambda d: d.filter(pc.field("dealy") > 1),
        r"^filter: no column 'dealy'; did you mean 'delay'\? The columns are: carrier, delay, miles, ",
    ),
    "filter, not boolean": (lambda d: d.filter(pc.field("delay")), "filter: Filter expression must evaluate to bool"),
    "filter, types": (lambda d: d.filter(pc.field("delay") > "x"), "filter: .*no kernel matching input types"),
    "filter, no expression": (lambda d: d.filter([True]), "filter: takes a pyarrow.compute.Expression .* not list"),
    "filter, position": (
        lambda d: d.filter(pc.field(1) > 1),
        "filter: the expression .* cannot be sent to agents; name its columns",
    ),
    "select, unknown column": (lambda d: d.select(["Carrier"]), "select: no column 'Carrier'; did you mean 'carrier'"),
    "select, nothing like it": (lambda d: d.select(["zzzz"]), "select: no column 'zzzz'; The columns are: carrier"),
    "select, a str": (lambda d: d.select("carrier"), r"select: takes a list of columns; write select\(\['carrier'\]\)"),
    "select, position": (lambda d: d.select([7]), "select: takes names and positions of 7 columns, not 7"),
    "select, nothing": (lambda d: d.select([]), r"select: no column would be left; count_rows\(\)"),
    "drop_columns, unknown": (lambda d: d.drop_columns("mile"), "drop_columns: no column 'mile'; did you mean 'miles'"),
    "drop_columns, a number": (
        lambda d: d.drop_columns(3),
        "drop_columns: takes the name of a column, or a list of names, not 3",
    ),
    "repartition, a number": (
        lambda d: d.repartition(16),
        "repartition: keys= takes the name of a column, or a list of names, not 16",
    ),
    "group_by, a list of positions": (
        lambda d: d.group_by([0]),
        "group_by: takes the name of a column, or a list of names, not 0",
    ),
    "unique, a number": (lambda d: d.unique(1), "unique: takes the name of a column, or a list of names, not 1"),
    "join, a number": (lambda d: d.join(d, 1), "join: keys= takes the name of a column, or a list of names, not 1"),
    "drop_columns, all": (lambda d: d.drop_columns(TABLE.column_names), "drop_columns: no column would be left"),
    "rename_columns, count": (lambda d: d.rename_columns(["a"]), "there are 7 columns, but 1 names were given"),
    "rename_columns, unknown": (lambda d: d.rename_columns({"dela": "d"}), "no column 'dela'; did you mean 'delay'"),
    "append_column, unknown": (
        lambda d: d.append_column("x", pc.field("mils") + 1),
        "append_column: no column 'mils'; did you mean 'miles'",
    ),
    "append_column, value": (lambda d: d.append_column("x", [1, 2]), "append_column: takes a .*Expression.* not list"),
    "append_column, name": (lambda d: d.append_column(1, pc.field("delay")), "append_column: takes a name, not int"),
    "map_batches, no function": (
        lambda d: d.map_batches("f"),
        "map_batches: takes a function of .*, not str",
    ),
    "map_batches, schema": (lambda d: d.map_batches(named, schema=["a"]), "schema= takes a pyarrow.Schema, not list"),
    "map_batches, raises": (
        lambda d: d.map_batches(named).schema,
        "map_batches: named raised ValueError when called with a batch without rows.* pass schema=",
    ),
    "map_batches, None": (
        lambda d: d.map_batches(lambda batch: None).schema,
        "<lambda> returned a NoneType for a batch without rows; .* pass schema=",
    ),
    "map_batches, no columns": (
        lambda d: d.map_batches(named, schema=pa.schema([])).schema,
        "map_batches: schema=: there are no columns",
    ),
    "join, unknown key": (lambda d: d.join(d, "carier"), "join: no column 'carier'; did you mean 'carrier'"),
    "join, unknown right key": (
        lambda d: d.join(d.rename_columns({"carrier": "airline"}), "carrier"),
        "join: right side: no column 'carrier'; The columns are: airline",
    ),
    "join, types": (
        lambda d: d.join(d, "delay", "miles"),
        "key 'delay' is of type int64, key 'miles' of the right side of type double; cast one",
    ),
    "join, type": (
        lambda d: d.join(d, "carrier", join_type="outer"),
        "there is no join_type 'outer'; there are 'left semi', .* 'full outer'",
    ),
    "join, filter": (
        lambda d: d.join(d, "carrier", filter_expression="delay > 1"),
        "filter_expression= takes a pyarrow.compute.Expression over the columns of both sides, not str",
    ),
    "join, filter by an unknown column": (
        lambda d: d.join(d, "carrier", filter_expression=pc.field("dely") > 1),
        "join: filter_expression: no column 'dely'; did you mean 'delay'",
    ),
    "join, filter by a column of both sides": (
        lambda d: d.join(d, "carrier", filter_expression=pc.field("delay") > 1),
        "join: filter_expression: several columns are named 'delay'; .* rename before it",
    ),
    "join, filter that is no condition": (
        lambda d: d.join(d.select(["carrier"]), "carrier", filter_expression=pc.field("delay")),
        "join: filter_expression: .*must evaluate to bool",
    ),
    "join, count": (lambda d: d.join(d, ["carrier", "delay"], ["carrier"]), "as many right_keys as keys"),
    "join, no keys": (lambda d: d.join(d, []), "as many right_keys as keys, and at least one"),
    "join, a table": (lambda d: d.join(TABLE, "carrier"), "the right side is a Dataset, not Table; .*from_table"),
    "join, other session": (
        lambda d: d.join(InterpreterSession().from_table(TABLE), "carrier"),
        "the two sides are of different sessions",
    ),
    "join, list key": (lambda d: d.join(d, "stops"), "column 'stops' of type list<.*> cannot be a key; cast it"),
    "group_by, unknown": (lambda d: d.group_by("carr"), "group_by: no column 'carr'; did you mean 'carrier'"),
    "group_by, struct": (lambda d: d.group_by(["delay", "place"]), "column 'place' of type struct<.*> cannot be a key"),
    "group_by, float16": (lambda d: d.group_by("half"), "column 'half' of type halffloat cannot be a key"),
    "group_by, extension": (lambda d: d.group_by("id"), "column 'id' of type extension<arrow.uuid> cannot be a key"),
    "aggregate, unknown": (
        lambda d: d.group_by("carrier").aggregate([("mile", "sum")]),
        "aggregate: no column 'mile'; did you mean 'miles'",
    ),
    "aggregate, function": (
        lambda d: d.group_by("carrier").aggregate([("miles", "men")]),
        "aggregate: no function 'men'; did you mean 'mean'.* There are: all, any, ",
    ),
    "aggregate, types": (
        lambda d: d.group_by("carrier").aggregate([("carrier", "sum")]),
        "aggregate: Function 'hash_sum' has no kernel matching input types",
    ),
    "aggregate, keys needed": (
        lambda d: d.group_by([]).aggregate([("miles", "list")]),
        "pyarrow has 'list' with keys only",
    ),
    "aggregate, nothing": (lambda d: d.group_by([]).aggregate([]), "there must be at least one aggregation"),
    "aggregate, form": (lambda d: d.group_by("carrier").aggregate(["miles"]), "takes .* tuples, not 'miles'"),
    "aggregate, options": (
        lambda d: d.group_by("carrier").aggregate([("miles", "sum", {"skip_nulls": True})]),
        "options are a pyarrow.compute.FunctionOptions",
    ),
    "sort_by, unknown": (lambda d: d.sort_by("delays"), "sort_by: no column 'delays'; did you mean 'delay'"),
    "sort_by, order": (
        lambda d: d.sort_by([("delay", "down")]),
        "sort_by: takes a name or .* not .'delay', 'down'",
    ),
    "sort_by, names": (lambda d: d.sort_by(["delay"]), "sort_by: takes a name or a list of .* not 'delay'"),
    "sort_by, nothing": (lambda d: d.sort_by([]), "sort_by: at least one column must be given"),
    "sort_by, type": (lambda d: d.sort_by("stops"), "sort_by: .*not supported for type list"),
    "head, negative": (lambda d: d.head(-1), "head: takes a number of rows from 0 on, not -1"),
    "repartition, count": (lambda d: d.repartition("carrier", 0), "num_partitions is a number from 1 on, not 0"),
    "repartition, unknown": (lambda d: d.repartition("carriers"), "no column 'carriers'; did you mean 'carrier'"),
    "write_dataset, format": (lambda d: d.write_dataset("x", format="orc"), "no format 'orc'; there are 'parquet', "),
    "repeated name": (
        lambda d: d.append_column("delay", pc.field("miles")).filter(pc.field("delay") > 1),
        "filter: several columns are named 'delay'; give join a left_suffix",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_call_is_a_usage_error_with_advice(case: str) -> None:
    call, message = CASES[case]
    with pytest.raises(UsageError, match=message):
        call(dataset())


def test_what_the_user_s_function_raised_is_the_cause() -> None:
    with pytest.raises(UsageError) as caught:
        dataset().map_batches(named).filter(pc.field("x") > 1)
    assert isinstance(caught.value.__cause__, ValueError)


def test_what_pyarrow_raised_is_the_cause() -> None:
    with pytest.raises(UsageError) as caught:
        dataset().filter(pc.field("delay") > "x")
    assert isinstance(caught.value.__cause__, pa.ArrowNotImplementedError)


def test_the_nearest_column_is_among_the_facts() -> None:
    with pytest.raises(UsageError) as caught:
        dataset().select(["mile"])
    assert caught.value.facts == {"column": "mile", "nearest": "miles"}


def test_of_many_columns_some_are_shown() -> None:
    wide = SESSION.from_table(pa.table({f"c{i}": [i] for i in range(50)}))
    with pytest.raises(UsageError, match=r"c0, c1, .*c19 and 30 more$"):
        wide.select(["zzz"])


def test_a_table_without_columns_is_refused() -> None:
    with pytest.raises(UsageError, match="from_table: there are no columns"):
        _ = Dataset(SESSION, TableNode(table_id="t", table=pa.table({}))).schema


def test_dictionaries_may_be_keys_where_their_values_may() -> None:
    table = pa.table({"k": pa.array(["a"]).dictionary_encode()})
    assert SESSION.from_table(table).group_by("k").aggregate([]).schema == table.schema
