"""What a worker process costs and gives: a morsel there and back next to a call in the thread, and how Python scales.

Prints its machine, versions, seed and noise, and ratios of things measured alternately in the same run.
`python benchmarks/workers.py [--rounds N] [--seed N]`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import random
import secrets
import statistics
import time
from collections.abc import Callable

import pyarrow as pa

from sabot.slots import Morsel, Pipeline, TaskSlotManager

MORSEL_BYTES = 1024 * 1024
SLOTS = 2
MORSELS = 8
LOOPS = 300_000


def same(rows: pa.RecordBatch) -> pa.RecordBatch:
    return rows


def pure_python(rows: pa.RecordBatch) -> None:
    spin()


def spin() -> int:
    total = 0
    for number in range(LOOPS):
        total += number & 7
    return total


def spin_often(times: int) -> None:
    for _ in range(times):
        spin()


def bare_processes(count: int) -> float:
    """Seconds that `count` processes need for the spins of MORSELS morsels, once all have started."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(count + 1)

    def run() -> None:
        barrier.wait()
        spin_often(MORSELS // count)

    processes = [context.Process(target=run) for _ in range(count)]
    for process in processes:
        process.start()
    barrier.wait()
    start = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - start


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(cases: dict[str, Callable[[], float]], rounds: int, rng: random.Random) -> dict[str, list[float]]:
    """What each case gives, in rounds; each round runs the cases in another order."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for _ in range(rounds):
        rng.shuffle(names)
        for name in names:
            seconds[name].append(cases[name]())
    return {name: times[len(times) // 10 :] for name, times in seconds.items()}  # the first tenth warms up


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
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"Python {platform.python_version()}, pyarrow {pa.__version__}; seed {options.seed}")
    bare = {f"bare processes, {count}": lambda count=count: bare_processes(count) for count in (1, SLOTS)}
    scaled_bare = measure(bare, 10, rng)  # before there are threads in this process, for it forks

    batch = pa.record_batch({"a": pa.array([rng.getrandbits(40) for _ in range(MORSEL_BYTES // 8)], pa.int64())})
    with TaskSlotManager(SLOTS) as manager, TaskSlotManager(1) as single:
        workers, others = manager.worker_pool(), single.worker_pool()
        there_and_back = Pipeline([("worker", same, None)], workers=others)
        calls = measure(
            {
                "in the thread": lambda: timed(lambda: single.execute_morsels([Morsel(batch)], same)),
                "in a worker": lambda: timed(lambda: single.execute_morsels([Morsel(batch)], there_and_back)),
            },
            options.rounds,
            rng,
        )
        tiny = batch.slice(0, 1)
        spins = [Morsel(tiny)] * MORSELS
        scaled = measure(
            {
                f"workers, {slots.get_num_slots()}": lambda slots=slots, pool=pool: timed(
                    lambda: slots.execute_morsels(spins, Pipeline([("worker", pure_python, None)], workers=pool))
                )
                for slots, pool in ((single, others), (manager, workers))
            },
            10,
            rng,
        )
    show("a morsel of 1 MiB through a function that gives it back", calls)
    more = statistics.median(calls["in a worker"]) - statistics.median(calls["in the thread"])
    print(f"  a worker costs {more * 1e3:.3f} ms more")
    show(f"{MORSELS} morsels of pure Python", {**scaled_bare, **scaled})
    gain_bare, gain = (
        statistics.median(times[one]) / statistics.median(times[two])
        for times, one, two in (
            (scaled_bare, "bare processes, 1", f"bare processes, {SLOTS}"),
            (scaled, "workers, 1", f"workers, {SLOTS}"),
        )
    )
    print(f"  {SLOTS} slots are {gain:.2f} x one; bare processes {gain_bare:.2f} x: ratio {gain / gain_bare:.2f}")


if __name__ == "__main__":
    main()
