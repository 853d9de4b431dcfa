"""What allocates from the ledger's pool, and what becomes of it when the memory is full."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyarrow import acero

from sabot.agent.tasks.memory_limit import typed
from sabot.errors import LimitReached
from sabot.native._native import Ledger, scatter
from sabot.slots import Morsel, TaskSlotManager

MiB = 1 << 20
ROWS = 1_000_000
ARROWS_OWN = pa.default_memory_pool()


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """A ledger of 64 MiB from whose pool pyarrow allocates in this test."""
    before = pa.default_memory_pool()
    ledger = Ledger(64 * MiB)
    pa.set_memory_pool(ledger.pool)
    yield ledger
    ledger.stop_watch()
    pa.set_memory_pool(before)


@pytest.fixture
def slots() -> Iterator[TaskSlotManager]:
    manager = TaskSlotManager(2)
    yield manager
    manager.shutdown()


@pytest.fixture
def rows() -> pa.RecordBatch:
    """8 MB, allocated outside of the ledger."""
    return pa.record_batch({"key": pa.array(range(ROWS), pa.int64())})


def allocated(ledger: Ledger) -> int:
    return ledger.snapshot()["allocated"]


def test_what_pyarrow_allocates_is_in_the_ledger_until_it_is_let_go(ledger: Ledger) -> None:
    table = pa.table({"a": pa.array(range(ROWS))})
    assert allocated(ledger) >= table.nbytes
    del table
    assert allocated(ledger) == 0


def test_expressions_plans_and_the_partitioner_allocate_from_the_pool(
    rows: pa.RecordBatch, ledger: Ledger, slots: TaskSlotManager
) -> None:
    [result] = slots.execute_morsels([Morsel(batch=rows)], pc.field("key") + 1)
    assert allocated(ledger) >= rows.nbytes
    before = allocated(ledger)
    plan = acero.Declaration.from_sequence(
        [
            acero.Declaration("table_source", acero.TableSourceNodeOptions(pa.Table.from_batches([rows]))),
            acero.Declaration("project", acero.ProjectNodeOptions([pc.field("key") * 2], ["twice"])),
        ]
    )
    table = slots.run_plan(plan)
    assert allocated(ledger) - before >= rows.nbytes
    before = allocated(ledger)
    chunks = scatter([rows], ["key"], 4, [0, 0, 1, 1], 0, MiB)
    assert allocated(ledger) - before >= rows.nbytes
    slots.shutdown()  # a slot may hold on to its last morsel for a moment
    del result, table, chunks
    assert allocated(ledger) == 0


def test_expression_beyond_the_limit_names_the_key(
    rows: pa.RecordBatch, ledger: Ledger, slots: TaskSlotManager
) -> None:
    held = pa.allocate_buffer(57 * MiB)
    with pytest.raises(LimitReached, match=r"raise memory\.bytes_max") as raised:
        slots.execute_morsels([Morsel(batch=rows)], pc.field("key") + 1)
    assert raised.value.facts["limit"] == "memory.bytes_max"
    assert held and allocated(ledger) < 64 * MiB


def test_plan_beyond_the_limit_names_the_key(rows: pa.RecordBatch, ledger: Ledger, slots: TaskSlotManager) -> None:
    held = pa.allocate_buffer(57 * MiB)
    source = acero.Declaration("table_source", acero.TableSourceNodeOptions(pa.Table.from_batches([rows])))
    grouped = acero.AggregateNodeOptions([("key", "hash_count", None, "n")], keys=["key"])
    with pytest.raises(LimitReached, match=r"raise memory\.bytes_max"):
        slots.run_plan(acero.Declaration.from_sequence([source, acero.Declaration("aggregate", grouped)]))
    assert held


def test_memory_error_of_a_file_reader_is_typed(rows: pa.RecordBatch, ledger: Ledger) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_batches([rows]), sink)
    held = pa.allocate_buffer(57 * MiB)
    with pytest.raises(pa.ArrowMemoryError) as raised:
        pq.read_table(io.BytesIO(sink.getvalue()), use_threads=False)
    error = typed(raised.value)
    assert isinstance(error, LimitReached)
    assert str(error).startswith("the agent's memory is full: ")
    assert "sabot code" not in str(error)
    assert held


def test_other_errors_keep_their_type() -> None:
    error = ValueError("mine")
    assert typed(error) is error
    assert isinstance(typed(pa.ArrowMemoryError("malloc of size 8 failed")), LimitReached)


def test_blocks_are_recycled_while_a_watch_gives_back_what_is_idle(ledger: Ledger) -> None:
    ledger.start_watch()
    block = pa.allocate_buffer(8 * MiB)
    del block
    assert ledger.pool.idle_bytes >= 8 * MiB
    block = pa.allocate_buffer(8 * MiB)
    assert ledger.pool.idle_bytes == 0
    del block
    ledger.stop_watch()
    assert ledger.pool.idle_bytes == 0


def test_what_arrows_own_pool_hands_out_is_counted_too(ledger: Ledger) -> None:
    ledger.start_watch()
    ledger.measure()
    before = allocated(ledger)
    past_it = pa.allocate_buffer(10 * MiB, memory_pool=ARROWS_OWN)
    ledger.measure()
    assert allocated(ledger) - before >= 10 * MiB
    del past_it
    ledger.measure()
    assert allocated(ledger) == before
