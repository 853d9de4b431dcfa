"""What a second slot adds: native work next to bare threads, and Python functions in workers next to bare processes.

Prints its machine, versions and seed, and how much faster two are than one, for ours and for the bare ones, measured
alternately in the same run. `python benchmarks/scaling.py [--rounds N] [--seed N]`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import secrets
import statistics
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

import pyarrow as pa
import pyarrow.compute as pc
from measuring import in_turns, print_machine, timed

from sabot.slots import Morsel, Pipeline, TaskSlotManager
from sabot.slots.workers import WorkerPool

MORSELS = 32
MORSEL_ROWS = 64 * 1024
LOOPS = 100_000


def bare_native(rows: pa.RecordBatch) -> pa.Array:
    return pc.add(pc.sin(rows["a"]), pc.ln(rows["b"]))


NATIVE = Pipeline([("project", ["c"], [pc.add(pc.sin(pc.field("a")), pc.ln(pc.field("b")))])])


def spin(rows: pa.RecordBatch | None = None) -> None:
    total = 0
    for number in range(LOOPS):
        total += number & 7


def spin_when_told(told: Connection) -> None:
    """A bare process: spins as often as it is told, and says when it has."""
    while times := told.recv():
        for _ in range(times):
            spin()
        told.send(True)


class BareProcesses:
    """Processes that were forked before there were threads."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("fork")
        self._ends: list[Connection] = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            context.Process(target=spin_when_told, args=(theirs,), daemon=True).start()
            self._ends.append(ours)

    def __call__(self) -> None:
        for end in self._ends:
            end.send(MORSELS // len(self._ends))
        for end in self._ends:
            end.recv()

    def close(self) -> None:
        for end in self._ends:
            end.send(0)


def in_threads(morsels: list[pa.RecordBatch], count: int) -> None:
    def run(mine: list[pa.RecordBatch]) -> None:
        for rows in mine:
            bare_native(rows)

    threads = [threading.Thread(target=run, args=(morsels[which::count],)) for which in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def show(title: str, cases: dict[str, Callable[[], object]], options: argparse.Namespace, bare: str, ours: str) -> None:
    seconds_of = in_turns(
        {name: timed(case) for name, case in cases.items()}, options.rounds, random.Random(options.seed)
    )
    took = {name: statistics.median(seconds) for name, seconds in seconds_of.items()}
    print(title)
    for name, seconds in took.items():
        print(f"  {name:20} {seconds * 1e3:8.2f} ms")
    gain_bare, gain = (took[f"{who}, 1"] / took[f"{who}, 2"] for who in (bare, ours))
    print(f"  two are {gain:.2f} x one; {bare} {gain_bare:.2f} x: ratio {gain / gain_bare:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print_machine(options.seed)
    processes = {count: BareProcesses(count) for count in (1, 2)}
    numbers = {name: pa.array([rng.random() + 0.1 for _ in range(MORSEL_ROWS)]) for name in "ab"}
    rows = pa.record_batch(numbers)
    with TaskSlotManager(1) as one, TaskSlotManager(2) as two:

        def in_workers(slots: TaskSlotManager, workers: WorkerPool) -> Callable[[], object]:
            function = Pipeline([("worker", spin, None)], workers=workers)
            return lambda: slots.execute_morsels([Morsel(rows.slice(0, 1))] * MORSELS, function)

        native: dict[str, Callable[[], object]] = {
            "bare threads, 1": lambda: in_threads([rows] * MORSELS, 1),
            "bare threads, 2": lambda: in_threads([rows] * MORSELS, 2),
            "slots, 1": lambda: one.execute_morsels([Morsel(rows)] * MORSELS, NATIVE),
            "slots, 2": lambda: two.execute_morsels([Morsel(rows)] * MORSELS, NATIVE),
        }
        show("native work", native, options, "bare threads", "slots")
        python: dict[str, Callable[[], object]] = {
            "bare processes, 1": processes[1],
            "bare processes, 2": processes[2],
            "workers, 1": in_workers(one, one.worker_pool()),
            "workers, 2": in_workers(two, two.worker_pool()),
        }
        show("pure Python", python, options, "bare processes", "workers")
    for bare in processes.values():
        bare.close()


if __name__ == "__main__":
    main()
