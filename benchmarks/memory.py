"""How much memory a task's work takes next to the rows that it is given, as sabot/agent/tasks/working_memory.py has it.

Each piece of work runs in one thread and allocates from a ledger's pool; shown is the highest sum allocated at a time,
the rows given included, divided by the bytes of these rows.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.stage import Aggregate, Join, Sort, TableStep
from sabot.native._native import Ledger, scatter
from sabot.slots import TaskSlotManager

CHUNK_BYTES = 4 << 20


def rows(count: int, groups: int, seed: int) -> pa.Table:
    """An int64 key in random order, a double, and a text of about 10 bytes."""

    def integers(below: int, salt: int) -> pa.Array:
        return pc.cast(pc.multiply(pc.random(count, initializer=seed + salt), below), pa.int64(), safe=False)

    text = pc.cast(integers(10**10, 1), pa.string())
    return pa.table({"k": integers(groups, 2), "v": pc.random(count, initializer=seed), "t": text})


def chunked(table: pa.Table) -> pa.Table:
    """As a partition is read: a piece of each chunk that came."""
    rows_max = max(1, table.num_rows * CHUNK_BYTES // table.nbytes)
    return pa.Table.from_batches(table.to_batches(max_chunksize=rows_max), table.schema)


def peak_of(given: Sequence[pa.Table], work: Callable[[], object]) -> float:
    """Bytes at the highest, in parts of the bytes given."""
    before = pa.default_memory_pool()
    ledger = Ledger()
    pa.set_memory_pool(ledger.pool)
    try:
        answer = work()
        peak = ledger.snapshot()["peak"]
        del answer
    finally:
        pa.set_memory_pool(before)
    size = sum(table.nbytes for table in given)
    return (size + peak) / size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"{platform.machine()}, pyarrow {pa.__version__}, {options.rows:,} rows, seed {options.seed}")
    manager = TaskSlotManager(1)

    def show(what: str, step: TableStep, *given: pa.Table) -> None:
        print(f"{what}: {peak_of(given, partial(apply_table_step, step, given, manager.run_plan)):.2f}")

    left, right = (chunked(rows(options.rows, options.rows, options.seed + side)) for side in range(2))
    for groups in (options.rows // 1000, options.rows // 4, options.rows):
        table = chunked(rows(options.rows, groups, options.seed))
        show(f"group into {groups:,}", Aggregate(keys=("k",), aggregations=(("v", "sum"), ("t", "count"))), table)
    for kind in ("inner", "left outer"):
        join = Join(keys=("k",), right_keys=("k",), join_type=kind, right_suffix="_r")
        show(f"join, {kind}", join, left, right)
    show("sort", Sort(sorting=(("k", "ascending"),)), left)
    scattered = partial(scatter, left.to_batches(), ["k"], 16, [0] * 16, 0, CHUNK_BYTES)
    print(f"scatter: {peak_of([left], scattered):.2f}")
    manager.shutdown()


if __name__ == "__main__":
    main()
