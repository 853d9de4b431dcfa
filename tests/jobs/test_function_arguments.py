"""What map_batches takes besides the function: batches of a size, and a schema, else learnt in a worker."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cloudpickle
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sabot.errors import TaskFailed, UsageError

from .in_process import InProcessCluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers are spared what this module imports

TABLE = pa.table({"v": pa.array(range(1000), pa.int64())})
ROWS = pa.schema([("rows", pa.int64()), ("sum", pa.int64())])


def sizes(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch({"rows": [batch.num_rows], "sum": [pc.sum(batch["v"]).as_py()]}, schema=ROWS)


@pytest.mark.parametrize("processes", [True, False])
def test_batches_have_exactly_the_rows_asked_for(cluster: InProcessCluster, tmp_path: Path, processes: bool) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet", row_group_size=130)  # so that batches span row groups
    data = cluster.connect().read_parquet(tmp_path / "t.parquet").repartition(num_partitions=1)
    filtered = data.filter(pc.field("v") >= 10)
    answer = filtered.map_batches(sizes, batch_rows=300, schema=ROWS, processes=processes).to_table()
    assert sorted(answer["rows"].to_pylist()) == [90, 300, 300, 300]
    assert pc.sum(answer["sum"]).as_py() == sum(range(10, 1000))


def test_batches_of_a_size_may_follow_each_other(cluster: InProcessCluster, tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    data = cluster.connect().read_parquet(tmp_path / "t.parquet").repartition(num_partitions=1)
    halves = data.map_batches(lambda batch: batch.slice(0, 1), batch_rows=2, schema=TABLE.schema)
    answer = halves.map_batches(sizes, batch_rows=200, schema=ROWS).to_table()
    assert sorted(answer["rows"].to_pylist()) == [100, 200, 200]


def test_schema_is_learnt_in_a_worker_once_per_function(cluster: InProcessCluster) -> None:
    client = os.getpid()

    def with_pid(batch: pa.RecordBatch) -> pa.RecordBatch:
        name = "in_client" if os.getpid() == client else "in_worker"
        return batch.append_column(name, pa.nulls(batch.num_rows, pa.int32()))

    session = cluster.connect()
    asked: list[int] = []
    ask = session._schemas._ask
    session._schemas._ask = lambda *given: asked.append(1) or ask(*given)  # type: ignore[method-assign, func-returns-value]
    data = session.from_table(TABLE)
    assert not data.map_batches(with_pid).__repr__().count("in_") and not asked, "lazy"
    for _ in range(3):
        assert data.map_batches(with_pid).schema == pa.schema([("v", pa.int64()), ("in_worker", pa.int32())])
    assert data.map_batches(with_pid).filter(pc.field("v") < 10).to_table().num_rows == 10
    assert len(asked) == 1


def test_function_that_fails_without_rows_is_told_to_be_given_a_schema(cluster: InProcessCluster) -> None:
    def first_value(batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch({"v": [batch["v"][0].as_py()]})

    data = cluster.connect().from_table(TABLE)
    with pytest.raises(UsageError, match=r"first_value raised IndexError .* pass schema=") as raised:
        _ = data.map_batches(first_value).schema
    assert isinstance(raised.value.__cause__, IndexError)
    assert "in first_value" in "\n".join(raised.value.__cause__.__notes__)
    with pytest.raises(UsageError, match="first_value raised IndexError"):
        data.map_batches(first_value).to_table()
    one = data.map_batches(first_value, batch_rows=1000, schema=TABLE.schema).to_table()
    assert 1 <= one.num_rows <= 2


def test_function_that_dies_without_rows_leaves_the_agent_alone(cluster: InProcessCluster) -> None:
    session = cluster.connect()
    with pytest.raises(UsageError, match="raised TaskFailed") as raised:
        _ = session.from_table(TABLE).map_batches(lambda batch: os._exit(3)).schema
    assert isinstance(raised.value.__cause__, TaskFailed) and "exit code 3" in str(raised.value.__cause__)
    assert session.from_table(TABLE).count_rows() == 1000


@pytest.mark.parametrize("rows", [0, -1, True, 1.5, "10"])
def test_batch_rows_that_are_no_number_of_rows_are_refused(cluster: InProcessCluster, rows: object) -> None:
    with pytest.raises(UsageError, match="batch_rows is a number of rows from 1 on, or None, not"):
        cluster.connect().from_table(TABLE).map_batches(sizes, batch_rows=rows)  # type: ignore[arg-type]


def test_schema_in_the_place_of_batch_rows_is_told_its_own(cluster: InProcessCluster) -> None:
    with pytest.raises(UsageError, match="not a Schema; pass the schema as schema="):
        cluster.connect().from_table(TABLE).map_batches(sizes, ROWS)  # type: ignore[arg-type]
