"""How fast morsels go through the slots, and how fairly: next to a ThreadPoolExecutor, oneTBB and other queues.

Prints its machine, versions, seed and noise, and ratios of things measured alternately in the same run; for the native
part it builds benchmarks/native (peers that are not installed are named). `--soak S` runs everything at random for S
seconds instead, and fails where an answer is missing, wrong or leaves something behind.
`python benchmarks/slots.py [--rounds N] [--seed N] [--soak S]`.
"""

from __future__ import annotations

import argparse
import random
import secrets
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
from measuring import in_turns, print_machine, timed
from native_part import lines_of
from slots_latency import print_latency
from slots_sharing import print_sharing, print_skew
from slots_soak import soak

from sabot.slots import Morsel, MorselExecutor, Pipeline, TaskSlotManager

ROWS = 50_000
MORSEL_BYTES = 64 * 1024
MORSEL_ROWS = MORSEL_BYTES // 16
SLOTS = 4
# What of the native part's facts is ours; the others are peers.
OURS = {"queue": ("ring",), "item": ("one run", "a run each")}


def multiply(rows: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch([pc.multiply(rows.column(0), rows.column(1))], names=["product"])


def nothing(rows: pa.RecordBatch) -> None:
    return None


def print_native(rounds: int) -> None:
    """Builds the native benchmark, runs it and prints its facts with their ratios."""
    facts: dict[str, float] = {}
    for name, fact in lines_of("slots_bench", rounds):
        value, _, unit = fact.partition(" ")
        if value == "missing":
            print(f"  {name:28} not installed ({unit})")
            continue
        facts[name] = float(value)
    for name, value in facts.items():
        kind, _, threads = name.rpartition("/")
        group, _, what = kind.partition("/")
        ours = OURS.get(group, ())
        ratios = [f", {one} takes {facts[f'{group}/{one}/{threads}'] / value:.2f} x that" for one in ours]
        print(f"  {name:28} {value:8.1f} ns{'' if what in ours else ''.join(ratios)}")


def print_idle() -> None:
    """What 16 slots use while they have nothing to do."""
    with TaskSlotManager(num_slots=16):
        before, start = time.process_time(), time.perf_counter()
        time.sleep(1.0)
        used = time.process_time() - before
        print(f"16 idle slots: {used / (time.perf_counter() - start):.3%} of a core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--soak", type=float, metavar="S", help="seconds")
    options = parser.parse_args()
    if options.soak:
        soak(options.soak, options.seed)
        return
    rng = random.Random(options.seed)
    batch = pa.record_batch({name: pa.array([rng.getrandbits(20) for _ in range(ROWS)], pa.int64()) for name in "ab"})
    starts = range(0, ROWS, MORSEL_ROWS)

    with (
        MorselExecutor(num_threads=SLOTS) as executor,
        TaskSlotManager(num_slots=SLOTS) as manager,
        ThreadPoolExecutor(SLOTS) as threads,
    ):
        expression = Pipeline([("project", ["product"], [pc.field("a") * pc.field("b")])])
        many = [Morsel(batch, row, 1) for row in range(1_000)]
        cases = {
            "slots, Python function": timed(lambda: executor.execute_local(batch, MORSEL_BYTES, multiply)),
            "slots, expression": timed(lambda: executor.execute_local(batch, MORSEL_BYTES, expression)),
            "ThreadPoolExecutor": timed(
                lambda: list(threads.map(lambda start: multiply(batch.slice(start, MORSEL_ROWS)), starts))
            ),
            "one thread, no pool": timed(lambda: [multiply(batch.slice(start, MORSEL_ROWS)) for start in starts]),
        }
        tiny = {
            "slots": timed(lambda: manager.execute_morsels(many, nothing)),
            "ThreadPoolExecutor": timed(
                lambda: list(threads.map(lambda m: nothing(batch.slice(m.start_row, 1)), many))
            ),
        }
        morsels = len(executor.execute_local(batch, MORSEL_BYTES, multiply))
        seconds_of = in_turns(cases, options.rounds, rng)
        seconds_of_tiny = in_turns(tiny, max(10, options.rounds // 10), rng)

    print_machine(options.seed)
    print(f"{ROWS} rows of two int64, {MORSEL_BYTES} bytes a morsel: {morsels} morsels, {SLOTS} slots")
    base = statistics.median(seconds_of["ThreadPoolExecutor"])
    for name, seconds in seconds_of.items():
        median = statistics.median(seconds)
        low, _, high = statistics.quantiles(seconds, n=4)
        print(
            f"  {name:24} {median * 1e6:7.0f} us (quartiles {low * 1e6:.0f} to {high * 1e6:.0f}), "
            f"{ROWS / median / 1e6:6.1f} M rows/s, best {ROWS / min(seconds) / 1e6:.1f}, "
            f"{base / median:.2f} x ThreadPoolExecutor"
        )
    print(f"a morsel that does nothing in Python, {len(many)} at a time:")
    base = statistics.median(seconds_of_tiny["ThreadPoolExecutor"])
    for name, seconds in seconds_of_tiny.items():
        median = statistics.median(seconds)
        print(f"  {name:24} {median / len(many) * 1e6:7.2f} us a morsel, {base / median:.2f} x ThreadPoolExecutor")
    print_sharing(seconds=1.0)
    print_skew(rng)
    print_latency()
    print_idle()
    print("native, medians:")
    print_native(max(7, options.rounds // 50))


if __name__ == "__main__":
    main()
