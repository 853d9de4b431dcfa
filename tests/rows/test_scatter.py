"""The partitioner: every row comes out once, with its equals and in order, and what it counts is what went in."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sabot.errors import UsageError
from sabot.native import _native
from tests.rows import strategies as rows
from tests.rows.test_hash import run_end_encoded, union

MIB = 1 << 20


def scatter(batches: list[pa.RecordBatch], keys: list[str], num_partitions: int, **options: Any) -> list[Any]:
    arguments = {"owner_of": [0] * num_partitions, "sum_column": 0, "chunk_bytes_max": MIB, **options}
    return list(_native.scatter(batches, keys, num_partitions, **arguments))


def rows_by_partition(chunks: list[Any]) -> dict[int, list[Any]]:
    """Partition -> its rows in order, as the chunks' extents say."""
    found: dict[int, list[Any]] = defaultdict(list)
    for _, batch, extents in chunks:
        batch.validate(full=True)
        start = 0
        for partition, count, _ in extents:
            assert count > 0
            found[partition] += batch.slice(start, count).to_pylist()
            start += count
        assert start == batch.num_rows
    return found


def partitions_of(batch: pa.RecordBatch, keys: list[str], num_partitions: int) -> list[int]:
    return list(_native.partition_of(_native.hash_keys(batch, keys), num_partitions).to_pylist())


@given(
    rows.batches(), st.lists(st.integers(0, 40), max_size=4), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3000)
)
def test_every_row_comes_out_once_in_its_partition_and_in_order(
    batch: pa.RecordBatch, points: list[int], num_partitions: int, num_owners: int, chunk_bytes_max: int
) -> None:
    owner_of = [partition % num_owners for partition in range(num_partitions)]
    chunks = scatter(
        rows.cut(batch, points), ["id"], num_partitions, owner_of=owner_of, chunk_bytes_max=chunk_bytes_max
    )
    expected = defaultdict(list)
    for row, partition in zip(batch.to_pylist(), partitions_of(batch, ["id"], num_partitions), strict=True):
        expected[partition].append(row)
    assert rows.comparable(rows_by_partition(chunks)) == rows.comparable(expected)
    for owner, _, extents in chunks:
        assert {owner_of[partition] for partition, _, _ in extents} == {owner}
    assert [owner for owner, _, _ in chunks] == sorted(owner for owner, _, _ in chunks)


@given(st.data(), rows.batches(), st.lists(st.integers(0, 40), max_size=3), st.integers(1, 5), st.integers(1, 3000))
def test_content_sums_of_the_output_add_up_to_those_of_the_input(
    data: st.DataObject, batch: pa.RecordBatch, points: list[int], num_partitions: int, chunk_bytes_max: int
) -> None:
    column = data.draw(st.integers(0, batch.num_columns - 1))
    chunks = scatter(
        rows.cut(batch, points), ["id"], num_partitions, sum_column=column, chunk_bytes_max=chunk_bytes_max
    )
    total = 0
    for _, out, extents in chunks:
        start = 0
        for _, count, content_sum in extents:
            assert _native.content_sum(out.slice(start, count), ["id"], column) == content_sum
            start += count
            total += content_sum
    assert total % 2**64 == _native.content_sum(batch, ["id"], column)


def test_content_sums_of_many_rows_add_up_under_several_keys() -> None:
    batch = pa.record_batch({"id": range(5000), "s": [f"s{i % 700}" for i in range(5000)], "x": [0.5] * 5000})
    chunks = scatter([batch.slice(0, 1500), batch.slice(1500)], ["s", "id"], 16, sum_column=2, chunk_bytes_max=9000)
    assert sum(e[2] for c in chunks for e in c[2]) % 2**64 == _native.content_sum(batch, ["s", "id"], 2)
    expected = dict(zip(range(5000), partitions_of(batch, ["s", "id"], 16), strict=True))
    found = rows_by_partition(chunks)
    assert {row["id"]: partition for partition, members in found.items() for row in members} == expected


@given(st.data(), st.sampled_from(rows.FLAT_TYPES), st.integers(1, 50))
def test_equal_keys_meet_whatever_their_layout(data: st.DataObject, kind: pa.DataType, num_partitions: int) -> None:
    key = data.draw(rows.arrays(kind, rows=data.draw(st.integers(1, 20))))
    id_ = pa.array(range(len(key)))
    expected = partitions_of(pa.record_batch([key, id_], ["k", "id"]), ["k"], num_partitions)
    for layout in rows.layouts_of(key):
        batch = pa.record_batch([layout, id_], ["k", "id"])
        if pa.types.is_dictionary(layout.type):
            assert partitions_of(batch, ["k"], num_partitions) == expected
            continue
        found = rows_by_partition(scatter([batch], ["k"], num_partitions))
        where = {row["id"]: partition for partition, members in found.items() for row in members}
        assert [where[i] for i in range(len(key))] == expected


@given(st.data())
def test_column_torn_from_its_key_changes_the_content_sum(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 20))
    values = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    first, second = data.draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=2, unique=True))
    assume(values[first] != values[second])
    torn = list(values)
    torn[first], torn[second] = torn[second], torn[first]
    keys = pa.array(range(size))
    before, after = (pa.record_batch([keys, pa.array(column)], ["k", "v"]) for column in (values, torn))
    assert _native.content_sum(before, ["k"], 1) != _native.content_sum(after, ["k"], 1)


def test_torn_column_goes_unseen_without_its_key() -> None:
    before, after = (pa.record_batch({"k": [1, 2], "v": column}) for column in ([7, 8], [8, 7]))
    assert _native.content_sum(before, [], 1) == _native.content_sum(after, [], 1)


@given(st.integers(0, 50), st.integers(1, 7), st.integers(0, 20))
def test_round_robin_deals_rows_in_turn_from_the_first_row(count: int, num_partitions: int, first_row: int) -> None:
    batch = pa.record_batch({"id": range(count)}, schema=pa.schema({"id": pa.int64()}))
    chunks = scatter([batch], [], num_partitions, partitioning="round_robin", first_row=first_row)
    found = {partition: [row["id"] for row in members] for partition, members in rows_by_partition(chunks).items()}
    expected = defaultdict(list)
    for i in range(count):
        expected[(first_row + i) % num_partitions].append(i)
    assert found == expected
    assert sum(e[2] for c in chunks for e in c[2]) % 2**64 == _native.content_sum(batch, [], 0)


def test_no_rows_give_no_chunks() -> None:
    empty = pa.record_batch({"id": pa.array([], pa.int64())})
    assert scatter([], ["id"], 3) == []
    assert scatter([empty, empty], ["id"], 3) == []


def test_one_partition_needs_no_keys() -> None:
    batch = pa.record_batch({"id": [1, 2, 3]})
    ((owner, out, extents),) = scatter([batch], [], 1)
    assert (owner, out) == (0, batch)
    assert extents == [(0, 3, _native.content_sum(batch, [], 0))]


def test_batch_without_columns_keeps_its_rows() -> None:
    batch = pa.record_batch({"id": [1, 2, 3]}).select([])
    chunks = scatter([batch], [], 2, partitioning="round_robin")
    assert [(out.num_rows, extents) for _, out, extents in chunks] == [(3, [(0, 2, 0), (1, 1, 0)])]


@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.string_view(), pa.list_(pa.string_view())], ids=str)
def test_chunks_keep_to_their_limit_on_the_wire(kind: pa.DataType) -> None:
    texts = [f"a value of some length, number {i:09}" for i in range(4000)]
    values = {
        pa.int64(): range(4000),
        pa.list_(pa.string_view()): [[text] for text in texts],
    }.get(kind, texts)
    batch = pa.record_batch([pa.array(range(4000)), pa.array(values, kind)], ["id", "v"])
    chunks = scatter([batch.slice(0, 1000), batch.slice(1000)], ["id"], 8, owner_of=[0, 1] * 4, chunk_bytes_max=16384)
    sizes = [len(rows.ipc_bytes(out)) for _, out, _ in chunks]
    assert max(sizes) < 1.3 * 16384
    assert len(chunks) <= 2 * (sum(sizes) / 16384 + 2)


def test_chunk_has_at_least_one_row() -> None:
    chunks = scatter([pa.record_batch({"s": ["x" * 1000] * 3})], ["s"], 1, chunk_bytes_max=1)
    assert [out.num_rows for _, out, _ in chunks] == [1, 1, 1]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["a", "b"]).dictionary_encode(), "Column 'c' holds dictionary-encoded values .* decode it first"),
        (pa.array([["a"], ["b"]]).cast(pa.list_(pa.dictionary(pa.int8(), pa.string()))), "Column 'c' holds dictionary"),
        (union(), "Column 'c' holds values of type sparse_union"),
        (run_end_encoded(), "Column 'c' holds values of type run_end_encoded"),
    ],
    ids=["dictionary", "nested dictionary", "union", "run_end_encoded"],
)
def test_column_that_cannot_be_shuffled_is_named(column: pa.Array, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        scatter([pa.record_batch([pa.array([1, 2]), column], ["id", "c"])], ["id"], 2)


BATCH = pa.record_batch({"id": [1, 2], "l": [[1], [2]]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_partitions": 0}, "number of partitions is 0"),
        ({"owner_of": [0]}, "2 partitions, but owners for 1"),
        ({"owner_of": [0, -1]}, "negative"),
        ({"keys": []}, "needs at least one key column"),
        ({"keys": ["ide"]}, "did you mean 'id'"),
        ({"keys": ["l"]}, "Column 'l' has type list<item: int64>"),
        ({"sum_column": 2}, "number 2, is out of range: there are 2 columns"),
        ({"chunk_bytes_max": 0}, "at least 1 byte"),
        ({"partitioning": "by size"}, "use one of hash, round_robin, range, column, broadcast"),
        ({"partitioning": "range"}, "at most one boundary less"),
        ({"batches": [BATCH, BATCH.select(["id"])]}, "Batch 1 has another schema"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_wrong_argument_is_a_usage_error(change: dict[str, Any], message: str) -> None:
    arguments = {"batches": [BATCH], "keys": ["id"], "num_partitions": 2, "owner_of": [0, 0], **change}
    with pytest.raises(UsageError, match=message):
        scatter(**arguments)
