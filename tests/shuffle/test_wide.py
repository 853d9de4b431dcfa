"""Wide shuffles: far more partitions than slots, in as much memory as narrow ones, with an index that stays small."""

from __future__ import annotations

import pyarrow as pa

from sabot.native._native import Ledger
from sabot.shuffle import HashPartitioning, ShuffleTransport
from sabot.slots import TaskSlotManager

ROWS = 400_000
BY_KEY = HashPartitioning(("key",))


def table(rows: int, first: int = 0) -> pa.Table:
    numbers = range(first, first + rows)
    return pa.table({"key": pa.array(numbers, pa.int64()), "a": pa.array(numbers), "b": pa.array([0.5] * rows)})


def peak_of(partitions: int) -> int:
    """The most memory that either of two agents of one slot had, of a shuffle whose rows are all read."""
    ledgers = [Ledger(), Ledger()]
    with (
        TaskSlotManager(num_slots=1) as one,
        TaskSlotManager(num_slots=1) as other,
        ShuffleTransport(slot_pool=one.native_pool, ledger=ledgers[0]) as first,
        ShuffleTransport(slot_pool=other.native_pool, ledger=ledgers[1]) as second,
    ):
        agents = [first.address, second.address]
        for transport in (first, second):
            transport.start_shuffle("wide", partitions, agents, partitioning=BY_KEY)
        for sender, transport in enumerate((first, second)):
            for start in range(0, ROWS, ROWS // 4):
                transport.send_rows("wide", table(ROWS // 4, sender * ROWS + start))
            transport.finish_shuffle("wide", timeout_s=60)
        keys = 0
        for partition in range(partitions):
            owner = (first, second)[partition % 2]
            keys += sum(batch.num_rows for batch in owner.receive_partition("wide", partition))
        assert keys == 2 * ROWS
        for transport in (first, second):
            transport.end_shuffle("wide")
    return max(ledger.snapshot()["peak"] for ledger in ledgers)


def test_a_thousand_partitions_on_two_slots_take_as_much_memory_as_ten() -> None:
    assert peak_of(1_000) < 1.3 * peak_of(10)


def test_index_of_ten_thousand_partitions_is_below_a_hundredth_of_what_is_stored() -> None:
    batches = 3
    rows = (32 << 20) // 24  # what one slot scatters at a time
    with ShuffleTransport() as transport:
        transport.start_shuffle("wide", 10_000, [transport.address], partitioning=BY_KEY)
        for batch in range(batches):
            transport.send_rows("wide", table(rows, batch * rows))
        transport.finish_shuffle("wide", timeout_s=60)
        stats = transport.stats()
        transport.end_shuffle("wide")
    assert stats["stored_bytes"] >= batches * 32 << 20
    assert stats["index_bytes"] < stats["stored_bytes"] / 100
