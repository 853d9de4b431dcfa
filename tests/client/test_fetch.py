"""A partition is handed out only when what was read is what its task reported."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from sabot.client.flight import read_partition
from sabot.errors import PeerLost, ShuffleIntegrityError, UsageError
from tests.client.plain_server import MARK, PlainServer, sum_of

BATCHES = [pa.record_batch({"x": pa.array([1, 2, 3], pa.int64())}), pa.record_batch({"x": pa.array([4], pa.int64())})]
SCHEMA = BATCHES[0].schema
SUM = sum(sum_of(batch) for batch in BATCHES) % 2**64


def fetch(server: PlainServer, *, rows: int = 4, content_sum: int = SUM, schema: pa.Schema = SCHEMA) -> pa.Table:
    server.parts.setdefault("t", (SCHEMA, BATCHES))
    batches = read_partition(
        server.address, "t", rows=rows, content_sum=content_sum, schema=schema, what="partition 0", timeout_s=10
    )
    return pa.Table.from_batches(list(batches), schema=schema)


def test_rows_arrive_in_order(server: PlainServer) -> None:
    assert fetch(server)["x"].to_pylist() == [1, 2, 3, 4]


def test_an_empty_partition_is_one_batch_without_rows(server: PlainServer) -> None:
    server.parts["t"] = (SCHEMA, [BATCHES[0].slice(0, 0)])
    assert fetch(server, rows=0, content_sum=0).num_rows == 0


def test_rows_without_columns_are_counted(server: PlainServer) -> None:
    schema = pa.schema([])
    server.parts["t"] = (schema, [pa.RecordBatch.from_arrays([], schema=schema)])
    assert fetch(server, rows=0, content_sum=0, schema=schema).num_columns == 0


def test_a_stream_without_its_last_batch_is_incomplete(server: PlainServer) -> None:
    server.tamper = lambda batch, metadata: None if metadata[4] else (batch, metadata)
    with pytest.raises(PeerLost, match="broke off after 3 of 4 rows"):
        fetch(server)


def test_a_changed_value_is_an_integrity_error_though_the_count_is_right(server: PlainServer) -> None:
    other = pa.record_batch({"x": pa.array([5], pa.int64())})
    server.tamper = lambda batch, metadata: (other if batch.num_rows == 1 else batch, metadata)
    with pytest.raises(ShuffleIntegrityError, match="differs from what was sent in batch 1"):
        fetch(server)


def test_other_rows_than_the_task_reported_are_an_integrity_error(server: PlainServer) -> None:
    with pytest.raises(ShuffleIntegrityError, match="as the task reported") as caught:
        fetch(server, content_sum=SUM ^ 1)
    assert caught.value.facts["agent"] == server.address


def test_fewer_rows_than_the_task_reported_are_an_integrity_error(server: PlainServer) -> None:
    with pytest.raises(ShuffleIntegrityError, match="has 4 rows"):
        fetch(server, rows=5)


def test_a_batch_that_comes_twice_is_an_integrity_error(server: PlainServer) -> None:
    first: list[Any] = []

    def repeat(batch: pa.RecordBatch, metadata: bytes) -> tuple[pa.RecordBatch, bytes]:
        first.append((batch, metadata))
        return first[0]  # type: ignore[no-any-return]

    server.tamper = repeat
    with pytest.raises(ShuffleIntegrityError, match="where batch 1 was due"):
        fetch(server)


@pytest.mark.parametrize("metadata", [None, b"SBTR", MARK.pack(b"NOPE", 1, 0, 3, 0)])
def test_a_batch_that_is_no_result_of_ours_is_an_integrity_error(server: PlainServer, metadata: bytes | None) -> None:
    server.tamper = lambda batch, _: (batch, metadata) if metadata is not None else batch
    with pytest.raises(ShuffleIntegrityError, match="run the job again"):
        fetch(server)


def test_another_schema_than_planned_is_an_integrity_error(server: PlainServer) -> None:
    with pytest.raises(ShuffleIntegrityError, match="planned"):
        fetch(server, schema=pa.schema([("y", pa.int64())]))


def test_a_failure_marked_by_an_agent_keeps_its_type_and_facts(server: PlainServer) -> None:
    with pytest.raises(UsageError, match=r"^nothing is published as gone \(name=gone, index=3\)$") as caught:
        list(
            read_partition(server.address, "u", rows=0, content_sum=0, schema=SCHEMA, what="partition 0", timeout_s=10)
        )
    assert caught.value.facts == {"name": "gone", "index": 3}


def test_an_agent_that_is_gone_is_named(dead_address: str) -> None:
    with pytest.raises(PeerLost, match=dead_address):
        list(read_partition(dead_address, "t", rows=0, content_sum=0, schema=SCHEMA, what="partition 0", timeout_s=10))
