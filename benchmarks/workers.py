"""What a worker process costs: a morsel there and back, next to a call in the thread.

Prints its machine, versions, seed and noise, and ratios of things measured alternately in the same run.
`python benchmarks/workers.py [--rounds N] [--seed N]`.
"""

from __future__ import annotations

import argparse
import random
import secrets
import statistics

import pyarrow as pa
from measuring import in_turns, print_machine, timed

from sabot.slots import Morsel, Pipeline, TaskSlotManager

MORSEL_BYTES = 1024 * 1024


def same(rows: pa.RecordBatch) -> pa.RecordBatch:
    return rows


def show(title: str, measured: dict[str, list[float]]) -> None:
    print(title)
    for name, seconds in measured.items():
        low, median, high = statistics.quantiles(seconds, n=4)
        print(f"  {name:32} {median * 1e3:8.3f} ms (quartiles {low * 1e3:.3f} to {high * 1e3:.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print_machine(options.seed)
    batch = pa.record_batch({"a": pa.array([rng.getrandbits(40) for _ in range(MORSEL_BYTES // 8)], pa.int64())})
    with TaskSlotManager(1) as single:
        there_and_back = Pipeline([("worker", same, None)], workers=single.worker_pool())
        calls = in_turns(
            {
                "in the thread": timed(lambda: single.execute_morsels([Morsel(batch)], same)),
                "in a worker": timed(lambda: single.execute_morsels([Morsel(batch)], there_and_back)),
            },
            options.rounds,
            rng,
        )
    show("a morsel of 1 MiB through a function that gives it back", calls)
    more = statistics.median(calls["in a worker"]) - statistics.median(calls["in the thread"])
    print(f"  a worker costs {more * 1e3:.3f} ms more")


if __name__ == "__main__":
    main()
