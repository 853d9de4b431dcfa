"""A join and a grouping as Acero plans in slots, next to pyarrow's own threads; the grouping also part by part.

Prints its machine, versions and seed, and for each way the seconds and the CPU seconds, medians of runs in turns, with
their spread and how they compare. `python benchmarks/plans.py [--rounds N] [--rows PARTS-OF-ONE] [--seed N]`.
"""

from __future__ import annotations

import argparse
import random
import secrets
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from measuring import in_turns, print_machine
from pyarrow import acero

from sabot.native._native import scatter
from sabot.slots import TaskSlotManager

JOIN_ROWS, JOIN_RIGHT_ROWS = 3_000_000, 1_500_000
GROUP_ROWS, GROUPS = 6_000_000, 1_500_000
PARTS = 8
PART_BYTES_MAX = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    seconds: float
    cpu_s: float
    spread: float  # from the fastest to the slowest run, as a part of the median


def measure(cases: dict[str, Callable[[], int]], rounds: int, rng: random.Random) -> dict[str, Took]:
    """All cases must give as many rows."""
    took = in_turns({name: _timed(case) for name, case in cases.items()}, rounds, rng)
    rows = {run[2] for runs in took.values() for run in runs}
    assert len(rows) == 1, f"the answers differ: {rows} rows"
    return {name: _median(runs) for name, runs in took.items()}


def _timed(case: Callable[[], int]) -> Callable[[], tuple[float, float, int]]:
    """`case` as one that gives its seconds, CPU seconds and rows."""

    def run() -> tuple[float, float, int]:
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        rows = case()
        return time.perf_counter() - start_s, time.process_time() - start_cpu_s, rows

    return run


def _median(runs: list[tuple[float, float, int]]) -> Took:
    seconds = [run[0] for run in runs]
    median = statistics.median(seconds)
    spread = (max(seconds) - min(seconds)) / median
    return Took(seconds=median, cpu_s=statistics.median(run[1] for run in runs), spread=spread)


def show(title: str, took: dict[str, Took], pairs: list[tuple[str, str]]) -> None:
    print(title)
    for name, one in took.items():
        print(f"  {name:24} {one.seconds * 1e3:7.0f} ms, CPU {one.cpu_s * 1e3:7.0f} ms, spread {one.spread:.0%}")
    for slower, faster in pairs:
        ratio, cpu = took[slower].seconds / took[faster].seconds, took[faster].cpu_s / took[slower].cpu_s
        print(f"  {faster}: {ratio:.2f} x as fast as {slower}, with {cpu:.2f} x its CPU")


def source(table: pa.Table) -> acero.Declaration:
    return acero.Declaration("table_source", acero.TableSourceNodeOptions(table))


def numbers(rows: int, below: int, seed: int) -> pa.Array:
    return pc.cast(pc.floor(pc.multiply(pc.random(rows, initializer=seed), below)), pa.int64())


def join_of(rows: int, right_rows: int, seed: int) -> acero.Declaration:
    left = pa.table({"k": numbers(rows, right_rows, seed), "a": pc.random(rows, initializer=seed)})
    keys = pc.array_sort_indices(pc.random(right_rows, initializer=seed + 1)).cast(pa.int64())
    right = pa.table({"k": keys, "b": pc.random(right_rows, initializer=seed)})
    options = acero.HashJoinNodeOptions("inner", ["k"], ["k"], ["k", "a"], ["b"])
    return acero.Declaration("hashjoin", options, [source(left), source(right)])


def grouping_of(table: pa.Table) -> acero.Declaration:
    aggregates = [("v", "hash_sum", None, "v_sum"), ([], "hash_count_all", None, "count_all")]
    node = acero.Declaration("aggregate", acero.AggregateNodeOptions(aggregates, keys=["k"]))
    return acero.Declaration.from_sequence([source(table), node])


def group_by_parts(table: pa.Table, slots: TaskSlotManager) -> int:
    """Scatters the rows by key hash, some in each slot, and groups each part in one slot: nothing is left to merge."""
    batches = table.to_batches()
    pieces = [batches[which :: slots.get_num_slots()] for which in range(slots.get_num_slots())]
    owners = list(range(PARTS))
    calls = [slots.call_in_slot(partial(scatter, piece, ["k"], PARTS, owners, 1, PART_BYTES_MAX)) for piece in pieces]
    parts: list[list[pa.RecordBatch]] = [[] for _ in owners]
    for call in calls:
        for owner, rows, _ in call.result():
            parts[owner].append(rows)

    def group(part: list[pa.RecordBatch]) -> int:
        return grouping_of(pa.Table.from_batches(part)).to_table(use_threads=False).num_rows

    grouped = [slots.call_in_slot(partial(group, part)) for part in parts]
    return sum(call.result() for call in grouped)


def in_pyarrow(plan: acero.Declaration, use_threads: bool) -> int:
    return plan.to_table(use_threads=use_threads).num_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=float, default=1.0, help="a part of the rows, for a glance")
    parser.add_argument("--seed", type=int, default=secrets.randbits(31))
    options = parser.parse_args()
    rng, seed = random.Random(options.seed), options.seed
    print_machine(options.seed)
    pa.set_cpu_count(2)
    with TaskSlotManager(1) as one, TaskSlotManager(2) as two:

        def ways(plan: acero.Declaration) -> dict[str, Callable[[], int]]:
            return {
                "pyarrow, one thread": lambda: in_pyarrow(plan, use_threads=False),
                "pyarrow, two threads": lambda: in_pyarrow(plan, use_threads=True),
                "one slot": lambda: one.run_plan(plan).num_rows,
                "two slots": lambda: two.run_plan(plan).num_rows,
            }

        pairs = [("pyarrow, one thread", "pyarrow, two threads"), ("one slot", "two slots")]
        rows, right_rows = (int(options.rows * count) for count in (JOIN_ROWS, JOIN_RIGHT_ROWS))
        join = join_of(rows, right_rows, seed)
        took = measure(ways(join), options.rounds, rng)
        show(f"join of {rows:,} with {right_rows:,} rows", took, [*pairs, ("pyarrow, two threads", "two slots")])

        rows, groups = (int(options.rows * count) for count in (GROUP_ROWS, GROUPS))
        keys = numbers(rows, groups, seed)
        for order, ordered in ("any", keys), ("key", keys.take(pc.array_sort_indices(keys))):
            table = pa.table({"k": ordered, "v": pc.random(rows, initializer=seed)})
            chunks = pa.Table.from_batches(table.to_batches(max_chunksize=64 * 1024))
            cases = ways(grouping_of(chunks))
            cases["parts, one slot"] = partial(group_by_parts, chunks, one)
            cases["parts, two slots"] = partial(group_by_parts, chunks, two)
            title = f"grouping of {rows:,} rows in {order} order into {groups:,} groups"
            more = [("one slot", "parts, one slot"), ("parts, one slot", "parts, two slots")]
            show(title, measure(cases, options.rounds, rng), [*pairs, *more, ("one slot", "parts, two slots")])


if __name__ == "__main__":
    main()
