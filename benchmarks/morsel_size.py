"""morsel_bytes="auto" against fixed sizes of 16 KiB times 4^n up to 16 MiB, on five workloads.

Each size runs next to "auto", in random order, so that what else the machine does hits both. Printed are medians per
size, and the median and quartiles of auto's ratio to it: that to the best size is to be at most 1.10, and the ratio of
"auto" to itself is the noise.

On a 2-core Xeon that had much else to do, auto took, in the order below, 1.05, 1.00, 0.94, 1.04 and 1.00 times what the
best size did. With --unknown, where each call finds out anew, it took 1 or 2 ms more: up to 1.14 of native work of 7 to
12 ms, 1.25 of Python's 10 ms, and 1.7 of the overhead's half of a millisecond.
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

from sabot.slots import Pipeline, TaskSlotManager
from sabot.slots.morsel import MorselBytes
from sabot.slots.operators import PipelineStep

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


Workload = tuple[list[PipelineStep], list[pa.RecordBatch]]


def workloads(rng: random.Random) -> dict[str, Workload]:
    pairs = numbers(4 * 1024 * 1024, rng)  # 64 MiB
    lines = words(1024 * 1024, rng)  # 36 MiB
    upper = pc.utf8_upper(pc.field("text"))
    sums = [pc.field("x") + pc.field("y"), pc.field("x") * 2]
    return {
        "filter expression": ([("filter", (pc.field("x") > 0.5) & (pc.field("y") < 0.9))], [pairs]),
        "projection": ([("project", ["s", "d"], sums)], [pairs]),
        "Python pc function": ([("call", hypotenuse)], [pairs]),
        "Python overhead per morsel": ([("call", python_overhead)], [pairs] * 8),
        "string-heavy": (
            [("filter", pc.match_substring(pc.field("text"), "abc")), ("project", ["u"], [upper])],
            [lines],
        ),
    }


def seconds_of(manager: TaskSlotManager, operator: Pipeline, batches: list[pa.RecordBatch], size: MorselBytes) -> float:
    start = time.perf_counter()
    manager.run_operator(batches, operator, morsel_bytes=size)
    return time.perf_counter() - start


def measure(
    manager: TaskSlotManager, workload: Workload, rounds: int, rng: random.Random, *, unknown: bool
) -> dict[MorselBytes, list[tuple[float, float]]]:
    """Seconds of each size and of "auto" right before or after it, in rounds."""
    steps, batches = workload
    known = Pipeline(steps)
    pairs: dict[MorselBytes, list[tuple[float, float]]] = {size: [] for size in (*SIZES, "auto")}
    order = list(pairs)
    for warm_up in [True, *[False] * rounds]:
        rng.shuffle(order)
        for size in order:
            took = {}
            for which, given in rng.sample([("size", size), ("auto", "auto")], 2):
                took[which] = seconds_of(manager, Pipeline(steps) if unknown else known, batches, given)
            if not warm_up:
                pairs[size].append((took["size"], took["auto"]))
    return pairs


def report(name: str, pairs: dict[MorselBytes, list[tuple[float, float]]]) -> None:
    medians = {size: statistics.median(took for took, _ in seen) for size, seen in pairs.items()}
    ratios = {size: statistics.quantiles([auto / took for took, auto in seen], n=4) for size, seen in pairs.items()}
    best = max(SIZES, key=lambda size: ratios[size][1])
    verdict = "" if ratios[best][1] <= RATIO_MAX else f", more than {RATIO_MAX}"
    print(f"{name}: auto {medians['auto'] * 1e3:.2f} ms, {ratios[best][1]:.2f} x the best{verdict}")
    for size, (low, median, high) in ratios.items():
        label = "  itself" if size == "auto" else f"{size // 1024:6} K"
        mark = " best" if size == best else ""
        print(f"  {label} {medians[size] * 1e3:8.2f} ms, auto {median:.2f} x it ({low:.2f} to {high:.2f}){mark}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--only", help="the workloads whose name contains this")
    parser.add_argument(
        "--unknown", action="store_true", help="a new operator for each call, of which nothing is known"
    )
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print_machine(options.seed)
    with TaskSlotManager(SLOTS) as manager:
        for name, workload in workloads(rng).items():
            if options.only and options.only not in name:
                continue
            report(name, measure(manager, workload, options.rounds, rng, unknown=options.unknown))


if __name__ == "__main__":
    main()
