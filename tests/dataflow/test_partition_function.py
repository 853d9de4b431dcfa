"""A partition travels as one batch; what cannot is refused by name."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sabot.dataflow.learned_schema import no_rows
from sabot.dataflow.partition_function import PartitionFunction, PartitionProbe, one_batch
from sabot.errors import LimitReached, UsageError

TABLE = pa.concat_tables([pa.table({"v": [1, 2]}), pa.table({"v": [3]})])


def test_chunks_become_one_batch() -> None:
    assert one_batch(TABLE, "it").to_pydict() == {"v": [1, 2, 3]}
    assert one_batch(TABLE.slice(0, 0), "it").schema == TABLE.schema


def test_column_that_no_array_holds_is_refused_by_name() -> None:
    most = pa.ListArray.from_arrays(pa.array([0, 2**31 - 2], pa.int32()), pa.nulls(2**31 - 2))  # takes no memory
    with pytest.raises(LimitReached, match=r"the partition is too large: a string, .* use more partitions"):
        one_batch(pa.table({"s": pa.chunked_array([most, most])}), "the partition")


@pytest.mark.parametrize("kind", [pa.list_(pa.string_view()), pa.struct([("a", pa.string_view())]), pa.binary_view()])
def test_views_are_learnt_as_large_types_and_answers_of_them_cast(kind: pa.DataType) -> None:
    def views(table: pa.Table) -> pa.Table:
        return pa.table({"x": pa.nulls(table.num_rows, kind)})

    learnt = PartitionProbe(views, "views")(no_rows(TABLE.schema)).schema
    assert "view" not in str(learnt.field("x").type)
    assert PartitionFunction(views, learnt, "views")(one_batch(TABLE, "it")).schema == learnt


def test_lazy_frame_is_told_to_be_collected() -> None:
    lazy = type("LazyFrame", (), {})()
    with pytest.raises(UsageError, match=r"returned a .*LazyFrame; .* or None; collect"):
        PartitionFunction(lambda table: lazy, TABLE.schema, "f")(one_batch(TABLE, "it"))
