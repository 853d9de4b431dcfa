"""What worker processes hold is measured and taken from the same limit."""

from __future__ import annotations

import pyarrow as pa
import pytest

from sabot.native._native import Ledger
from sabot.slots import MorselOperator, TaskSlotManager

MiB = 1 << 20


def test_private_memory_of_a_worker_counts_against_the_limit_while_it_lives() -> None:
    def hold(batch: pa.RecordBatch) -> pa.RecordBatch:
        import builtins

        builtins.kept = bytearray(b"1") * (80 << 20)  # type: ignore[attr-defined]  # as long as the worker lives
        return batch

    ledger = Ledger(256 * MiB)
    ledger.start_watch()
    manager = TaskSlotManager(1)
    operator = MorselOperator(hold, manager=manager, processes=True)
    operator.process_batch(pa.record_batch({"a": [1, 2, 3]}))
    ledger.measure(manager.nursery_pid)
    held = ledger.snapshot()
    assert 80 * MiB <= held["workers"] < 200 * MiB
    assert held["committed"] >= held["workers"]
    with pytest.raises(pa.ArrowMemoryError):
        pa.allocate_buffer(180 * MiB, memory_pool=ledger.pool)
    manager.shutdown()
    ledger.measure(None)
    assert ledger.snapshot()["workers"] == 0
    assert len(pa.allocate_buffer(180 * MiB, memory_pool=ledger.pool)) == 180 * MiB
    ledger.stop_watch()
