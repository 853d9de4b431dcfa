"""What the timeline costs a morsel: empty native morsels through one slot, with the timeline on and off.

The two pools take turns in random order, so that what else the machine does hits both; printed are medians, with the
spread of each, and the difference, which is to be at most 60 ns. On a machine that has other work, look at the best.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import secrets
import statistics
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sabot.native._native import MorselRun
from sabot.slots import Pipeline, TaskSlotManager

MORSELS = 20_000
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


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    batch = pa.record_batch({"a": pa.array(range(MORSELS), pa.int64())})
    nothing = Pipeline([])
    one_kernel = Pipeline([("project", ["a"], [pc.field("a") + 1])])

    print(f"machine: {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Linux {platform.release()}")
    print(f"versions: Python {platform.python_version()}, pyarrow {pa.__version__}; seed {options.seed}")
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
            pairs = statistics.median(a - b for a, b in zip(ns["on"], ns["off"], strict=True))
            best = min(ns["on"]) - min(ns["off"])
            print(f"  the timeline costs {pairs:.1f} ns (median of pairs), {best:.1f} (of the best); wanted: {NS_MAX}")


if __name__ == "__main__":
    main()
