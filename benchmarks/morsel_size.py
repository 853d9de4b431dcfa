"""morsel_bytes="auto" against fixed sizes of 16 KiB times 4^n up to 16 MiB, on five workloads.

Every size and "auto" run in turn, in random order; printed are medians per workload, and auto's ratio to the best fixed
size, which is to be at most 1.10. The noise is that of the best size: its upper quartile over its median.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sabot.slots import Pipeline, TaskSlotManager
from sabot.slots.morsel import MorselBytes

SLOTS = 2
SIZES = [16 * 1024 * 4**n for n in range(6)]
RATIO_MAX = 1.10


def hypotenuse(rows: pa.RecordBatch) -> pa.RecordBatch:
    squares = pc.add(pc.multiply(rows["x"], rows["x"]), pc.multiply(rows["y"], rows["y"]))
    return pa.record_batch({"h": pc.sqrt(squares)})


def python_overhead(rows: pa.RecordBatch) -> pa.RecordBatch:
    """About 20 us of plain Python for each morsel, whatever its size."""
    total = 0
    for number in range(400):
        total += number
    return rows.slice(0, total % 2)


def numbers(rows: int, rng: random.Random) -> pa.RecordBatch:
    block = pa.array([rng.random() for _ in range(64 * 1024)])
    column = pa.concat_arrays([block] * (rows // len(block)))
    return pa.record_batch({"x": column, "y": column})


def words(rows: int, rng: random.Random) -> pa.RecordBatch:
    block = pa.array(["".join(rng.choices("abcdefgh ", k=rng.randint(4, 60))) for _ in range(16 * 1024)])
    return pa.record_batch({"text": pa.concat_arrays([block] * (rows // len(block)))})


Workload = tuple[Pipeline | Callable[[pa.RecordBatch], pa.RecordBatch], list[pa.RecordBatch]]


def workloads(rng: random.Random) -> dict[str, Workload]:
    pairs = numbers(4 * 1024 * 1024, rng)  # 64 MiB
    lines = words(1024 * 1024, rng)  # 36 MiB
    upper = pc.utf8_upper(pc.field("text"))
    strings = Pipeline([("filter", pc.match_substring(pc.field("text"), "abc")), ("project", ["u"], [upper])])
    return {
        "filter expression": (Pipeline([("filter", (pc.field("x") > 0.5) & (pc.field("y") < 0.9))]), [pairs]),
        "projection": (
            Pipeline([("project", ["s", "d"], [pc.field("x") + pc.field("y"), pc.field("x") * 2])]),
            [pairs],
        ),
        "Python pc function": (hypotenuse, [pairs]),
        "Python overhead per morsel": (python_overhead, [pairs] * 8),
        "string-heavy": (strings, [lines]),
    }


def seconds_of(manager: TaskSlotManager, workload: Workload, size: MorselBytes) -> float:
    operator, batches = workload
    start = time.perf_counter()
    manager.run_operator(batches, operator, morsel_bytes=size)
    return time.perf_counter() - start


def measure(
    manager: TaskSlotManager, workload: Workload, sizes: Sequence[MorselBytes], rounds: int, rng: random.Random
) -> dict[MorselBytes, list[float]]:
    seconds: dict[MorselBytes, list[float]] = {size: [] for size in sizes}
    order = list(sizes)
    for warm_up in [True, *[False] * rounds]:
        rng.shuffle(order)
        for size in order:
            took = seconds_of(manager, workload, size)
            if not warm_up:
                seconds[size].append(took)
    return seconds


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--only", help="the workloads whose name contains this")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print(f"machine: {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Linux {platform.release()}")
    print(f"versions: Python {platform.python_version()}, pyarrow {pa.__version__}; seed {options.seed}")
    with TaskSlotManager(SLOTS) as manager:
        for name, workload in workloads(rng).items():
            if options.only and options.only not in name:
                continue
            seconds = measure(manager, workload, [*SIZES, "auto"], options.rounds, rng)
            medians = {size: statistics.median(times) for size, times in seconds.items()}
            best = min(SIZES, key=lambda size: medians[size])
            noise = statistics.quantiles(seconds[best], n=4)[2] / medians[best]
            ratio = medians["auto"] / medians[best]
            verdict = "" if ratio <= RATIO_MAX else f", more than {RATIO_MAX}"
            print(f"{name}: auto {medians['auto'] * 1e3:.2f} ms, {ratio:.2f} x the best{verdict} (noise {noise:.2f})")
            for size in SIZES:
                mark = " best" if size == best else ""
                print(f"  {size // 1024:6} KiB {medians[size] * 1e3:8.2f} ms{mark}")


if __name__ == "__main__":
    main()
