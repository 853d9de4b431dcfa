"""Grouping in one thread by our own hash table, by runs of equal keys and by Acero: rows in order and out of order.

`python benchmarks/grouping.py [--rounds N] [--seed N]`. Medians of CPU milliseconds of runs in turns.
"""

from __future__ import annotations

import argparse
import random
import secrets
import statistics
import time
from collections.abc import Callable

import pyarrow as pa
from measuring import in_turns, print_machine

from sabot.dataflow.grouping import group_by_one_key, group_declaration
from sabot.dataflow.run_grouping import group_runs
from sabot.dataflow.stage import Aggregate

GROUPS = 200_000
ROWS_OF_GROUP = 4
STEP = Aggregate(keys=("k",), aggregations=(("v", "sum"), ((), "count_all")))


def cpu_ms(call: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        start_s = time.thread_time()
        call()
        return 1e3 * (time.thread_time() - start_s)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print_machine(options.seed)
    in_order = [key for key in range(GROUPS) for _ in range(ROWS_OF_GROUP)]
    values = pa.array([rng.random() for _ in in_order])
    for name, keys in {"keys side by side": in_order, "in random order": rng.sample(in_order, len(in_order))}.items():
        table = pa.table({"k": pa.array(keys, pa.int64()), "v": values})
        cases = {
            "hash table": cpu_ms(lambda table=table: group_by_one_key(table, STEP)),  # type: ignore[misc]
            "Acero": cpu_ms(lambda table=table: group_declaration(table, STEP).to_table(use_threads=False)),  # type: ignore[misc]
        }
        if keys is in_order:
            cases["runs"] = cpu_ms(lambda table=table: group_runs(STEP, table, ascending=True))  # type: ignore[misc]
            two_keys = table.append_column("m", pa.array(keys, pa.int32()))
            two = Aggregate(keys=("k", "m"), aggregations=STEP.aggregations)
            cases["runs of two keys"] = cpu_ms(lambda: group_runs(two, two_keys, ascending=True))  # noqa: B023
            cases["Acero's two keys"] = cpu_ms(lambda: group_declaration(two_keys, two).to_table(use_threads=False))  # noqa: B023
        took = {case: statistics.median(runs) for case, runs in in_turns(cases, options.rounds, rng).items()}
        print(f"{len(keys):,} rows in {GROUPS:,} groups, {name}:")
        for case, each_ms in took.items():
            print(f"  {case:16} {each_ms:6.1f} ms, {each_ms / took['hash table']:.1f} x the hash table's")


if __name__ == "__main__":
    main()
