"""Plans over rows that an earlier job has left with the agents."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.dataflow.stage import TableInput
from sabot.errors import UsageError
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.interpreter import InterpreterSession

TABLE = pa.table(
    {"k": [1, 2, 2, None], "x": [1.0, 2.0, 3.0, None], "d": pa.array(["a", "b", None, "a"]).dictionary_encode()}
)


def test_persisted_rows_are_computed_once_and_read_where_they_lie() -> None:
    session = InterpreterSession()
    kept = session.from_table(TABLE).filter(pc.field("x") > 1).repartition("k", 4).persist()
    expected = TABLE.filter(pc.field("x") > 1)
    assert len(session.plans) == 1
    assert kept.schema.equals(TABLE.schema)
    assert kept.count_rows() == 2
    assert len(session.plans) == 1
    assert_same_rows(kept.to_table(), expected)
    assert_same_rows(
        kept.group_by("d").aggregate([("x", "sum")]).to_table(), expected.group_by("d").aggregate([("x", "sum")])
    )
    (reading,) = session.plans[1].stages
    assert isinstance(reading.input, TableInput)
    assert len(session.plans[1].uploads[reading.input.table_id]) == 4
    assert session.plans[1].results_read == {"0"}


def test_a_persisted_dataset_meets_others() -> None:
    session = InterpreterSession()
    kept = session.from_table(TABLE).persist()
    other = session.from_table(pa.table({"k": [2, 1], "y": ["two", "one"]}))
    expected = TABLE.join(pa.table({"k": [2, 1], "y": ["two", "one"]}), "k", join_type="inner")
    assert_same_rows(kept.join(other, "k", join_type="inner").to_table(), expected)
    assert_same_rows(kept.union(kept.persist()).to_table(), pa.concat_tables([TABLE, TABLE]))


def test_closing_a_persisted_dataset_frees_its_rows_and_ends_its_use() -> None:
    session = InterpreterSession()
    with session.from_table(TABLE).persist() as kept:
        derived = kept.select(["x"])
        assert derived.to_table().num_rows == 4
    assert session.results[0].closed
    with pytest.raises(UsageError, match="it was closed"):
        derived.to_table()
    kept.close()
