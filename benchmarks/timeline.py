"""What the timeline costs a morsel, which is to be at most 60 ns, through one slot that keeps it or does not.

First items, natively (benchmarks/native/timeline_bench.cc), where the histograms are told apart too; then morsels of a
batch. Runs of a few milliseconds take turns in random order, so that what else the machine does hits all, and the
median of the differences counts. On a 2-core Xeon that had much else to do, the timeline took 3 ns of an item that does
nothing, 4 to 5 of one that reads 16 KiB, 3 to 13 of an empty morsel and, in the noise, -20 to 27 of one with a kernel.
Of an item that reads 256 KiB, 5 us, and so drives the timeline out of the cache, it took 14 to 79, within quartiles of
-36 to 183; before its lines were fetched ahead 55 to 250. Histograms took 1 to 10.
"""

from __future__ import annotations

import argparse
import random
import secrets
import statistics
import time

import pyarrow as pa
import pyarrow.compute as pc
from measuring import print_machine
from native_part import lines_of

from sabot.native._native import MorselRun
from sabot.slots import Pipeline, TaskSlotManager

MORSELS = 1_000
NS_MAX = 60


def seconds_of(manager: TaskSlotManager, pipeline: Pipeline, batch: pa.RecordBatch) -> float:
    """The slot's own time for the morsels: neither cutting nor reading the answers is in it."""
    run = MorselRun(pipeline.native_operator)
    run.add_slices(batch, 1, 0, False)
    busy_us = manager.get_slot_stats()[0]["busy_us"]
    run.execute(manager.native_pool)
    while manager.get_slot_stats()[0]["busy"]:
        time.sleep(0)
    return (manager.get_slot_stats()[0]["busy_us"] - busy_us) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    batch = pa.record_batch({"a": pa.array(range(MORSELS), pa.int64())})
    nothing = Pipeline([])
    one_kernel = Pipeline([("project", ["a"], [pc.field("a") + 1])])

    print_machine(options.seed)
    print(f"native, wanted of the timeline: at most {NS_MAX} ns")
    for name, value in lines_of("timeline_bench", options.rounds, options.seed):
        print(f"  {name:50} {value}")
    with TaskSlotManager(1) as on, TaskSlotManager(1, timeline_morsels=0) as off:
        for name, pipeline in (("a morsel that does nothing", nothing), ("one row through one kernel", one_kernel)):
            ns: dict[str, list[float]] = {"on": [], "off": []}
            for _ in range(options.rounds):
                for which in rng.sample(["on", "off"], 2):
                    took = seconds_of(on if which == "on" else off, pipeline, batch)
                    ns[which].append(took / MORSELS * 1e9)
            print(f"{name}, {MORSELS} at a time:")
            for which, times in ns.items():
                low, _, high = statistics.quantiles(times, n=4)
                print(f"  {which:3} {statistics.median(times):7.1f} ns (quartiles {low:.1f} to {high:.1f})")
            low, median, high = statistics.quantiles((a - b for a, b in zip(ns["on"], ns["off"], strict=True)), n=4)
            print(f"  the timeline costs {median:.1f} ns (quartiles {low:.1f} to {high:.1f}); wanted: {NS_MAX}")


if __name__ == "__main__":
    main()
