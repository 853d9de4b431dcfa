"""Every partitioning between real transports: rows where they belong, audited, over the wire and in one's own store."""

from __future__ import annotations

import collections
from collections.abc import Callable

import pyarrow as pa
import pytest

from sabot.errors import PeerRefused, ShuffleIntegrityError, UsageError
from sabot.native import _native
from sabot.shuffle import (
    BroadcastPartitioning,
    ColumnPartitioning,
    HashPartitioning,
    Partitioning,
    RangePartitioning,
    RoundRobinPartitioning,
    ShuffleServer,
    ShuffleTransport,
)
from tests.shuffle import wire

MakeTransport = Callable[..., ShuffleTransport]
MakeServer = Callable[..., ShuffleServer]

PARTITIONS = 5
ROWS = 1000
BY_RANGE = RangePartitioning((("x", "descending"),), pa.record_batch({"x": [800, 500, 499, 20]}))


def table_of(sender: int) -> pa.Table:
    values = [(7 * i + sender) % ROWS for i in range(ROWS)]
    places = pa.array([value % PARTITIONS for value in values], pa.int32())
    return pa.table({"x": values, "text": [f"{sender} {value}" for value in values], "place": places})


def shuffled(make: MakeTransport, partitioning: Partitioning, count: int = 2) -> list[list[dict[str, object]]]:
    """The rows of each partition after `count` transports have sent a table each."""
    transports = [make() for _ in range(count)]
    for transport in transports:
        transport.start_shuffle("s", PARTITIONS, [each.address for each in transports], partitioning=partitioning)
    for sender, transport in enumerate(transports):
        transport.send_rows("s", table_of(sender))
        transport.finish_shuffle("s")
    received = [transports[p % count].receive_partition("s", p).read_all().to_pylist() for p in range(PARTITIONS)]
    for transport in transports:
        transport.end_shuffle("s")
    return received


def counted(rows: list[dict[str, object]]) -> collections.Counter[str]:
    return collections.Counter(str(row["text"]) for row in rows)


SENT = counted([row for sender in range(2) for row in table_of(sender).to_pylist()])


@pytest.mark.parametrize(
    "partitioning",
    [HashPartitioning(("x",)), RoundRobinPartitioning(), BY_RANGE, ColumnPartitioning("place")],
    ids=lambda partitioning: partitioning.name,
)
def test_every_row_arrives_once(make_transport: MakeTransport, partitioning: Partitioning) -> None:
    received = shuffled(make_transport, partitioning)
    assert counted([row for rows in received for row in rows]) == SENT


def test_broadcast_brings_every_row_to_every_partition(make_transport: MakeTransport) -> None:
    for rows in shuffled(make_transport, BroadcastPartitioning()):
        assert counted(rows) == SENT


def test_ranges_and_columns_say_where_rows_are(make_transport: MakeTransport) -> None:
    high = [1000, 800, 500, 499, 20, -1]
    for partition, rows in enumerate(shuffled(make_transport, BY_RANGE)):
        assert all(high[partition + 1] < int(str(row["x"])) <= high[partition] for row in rows)
    for partition, rows in enumerate(shuffled(make_transport, ColumnPartitioning("place"))):
        assert {row["place"] for row in rows} == {partition}


def test_sender_without_rows_completes_a_shuffle_with_a_partitioning(make_transport: MakeTransport) -> None:
    first, second = make_transport(), make_transport()
    for transport in (first, second):
        agents = [first.address, second.address]
        transport.start_shuffle("s", 2, agents, partitioning=HashPartitioning(("x",)))
    first.send_rows("s", table_of(0))
    for transport in (first, second):
        transport.finish_shuffle("s")
    rows = [transport.receive_partition("s", p).read_all().num_rows for p, transport in enumerate((first, second))]
    assert sum(rows) == ROWS


def test_agents_that_partition_differently_are_refused(make_transport: MakeTransport) -> None:
    first, second = make_transport(), make_transport()
    agents = [first.address, second.address]
    first.start_shuffle("s", 2, agents, partitioning=HashPartitioning(("x",)))
    second.start_shuffle("s", 2, agents, partitioning=HashPartitioning(("text",)))
    first.send_rows("s", table_of(0))
    first.finish_shuffle("s", timeout_s=10)
    with pytest.raises(PeerRefused, match="partitioned by other keys"):
        second.send_rows("s", table_of(1))
        second.finish_shuffle("s", timeout_s=10)


def test_row_in_another_partition_than_its_column_names_is_caught(make_server: MakeServer) -> None:
    server = make_server()
    server.start_shuffle("s", 2, [server.address])
    batch = pa.record_batch({"place": pa.array([1, 0, 1], pa.int32())})
    total = _native.content_sum(batch, ["place"], 0)
    header = wire.chunk("s", batch, by_column=True, keys=(0,), extents=((1, 3, total),))
    messages = [(header, batch), (wire.manifest([header], by_column=True, keys=(0,)), None)]
    wire.put(server.address, messages, batch.schema)
    with pytest.raises(ShuffleIntegrityError, match="belongs to another partition"):
        server.receive_partition("s", 1)


def test_wrong_use_is_said_at_once(make_transport: MakeTransport) -> None:
    transport = make_transport()
    transport.start_shuffle("s", 2, [transport.address], partitioning=HashPartitioning(("z",)))
    with pytest.raises(UsageError, match="no column 'z' to partition by"):
        transport.send_rows("s", table_of(0))
    with pytest.raises(UsageError, match="Use send_rows"):
        transport.send_partition("s", 0, pa.record_batch({"x": [1]}))
    with pytest.raises(UsageError, match="not list"):
        transport.send_rows("s", [1])  # type: ignore[arg-type]
    transport.start_shuffle("t", 2, [transport.address])
    with pytest.raises(UsageError, match="was started without a partitioning"):
        transport.send_rows("t", table_of(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HashPartitioning("city"), "not 'city'"),  # type: ignore[arg-type]
        (lambda: RangePartitioning.from_sample(table_of(0), [("x",)], 2), "is not understood"),  # type: ignore[list-item]
        (lambda: RangePartitioning.from_sample(table_of(0), ["x"], 2), "is not understood"),  # type: ignore[list-item]
        (lambda: RangePartitioning.from_sample(table_of(0), [("z", "ascending")], 2), "must have one column 'z'"),
        (lambda: RangePartitioning.from_sample(table_of(0), [], 2), "one sort key or more"),
        (lambda: RangePartitioning.from_sample(pa.table({"l": [[1]]}), [("l", "ascending")], 2), "cannot be sorted"),
        (lambda: RangePartitioning((("x", "ascending"),), pa.record_batch({"y": [1]})), "of the columns"),
    ],
)
def test_partitioning_that_makes_no_sense_is_a_usage_error(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_partitioning_of_another_kind_is_a_usage_error(make_transport: MakeTransport) -> None:
    transport = make_transport()
    with pytest.raises(UsageError, match="such as HashPartitioning"):
        transport.start_shuffle("s", 2, [transport.address], partitioning="hash")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"spill_dirs": "/tmp/spill"}, {"spill_bytes_max": -1}])
def test_wrong_spill_arguments_are_usage_errors(make_transport: MakeTransport, given: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="spill_dirs is a list of folders"):
        make_transport(**given)
