"""How long a short job takes under a long one that always has work, next to what its share of the slots promises."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from sabot.slots import Morsel, Pipeline, TaskSlotManager

LONG_MS = 5.0
SHORT_MS = 0.1
SHORT_MORSELS = 10
REQUESTS = 100

Operator = Callable[[pa.RecordBatch], None] | Pipeline


def print_latency() -> None:
    """A line for each kind of work and number of slots."""
    print(f"{SHORT_MORSELS} morsels of {SHORT_MS} ms, {REQUESTS} times, under a job of morsels of {LONG_MS:.0f} ms:")
    for kind, make in (("expression", _expression), ("Python", _function)):
        for slots in (1, 2):
            with TaskSlotManager(num_slots=slots) as manager:
                print(f"  {kind}, {slots} slots: {_measure(manager, make)}")


def _expression(manager: TaskSlotManager, milliseconds: float) -> tuple[pa.RecordBatch, Operator]:
    term = pc.field("a")
    for _ in range(4):
        term = pc.sqrt(term * term + 1.0)
    pipeline = Pipeline([("project", ["b"], [term])])
    rows = pa.record_batch({"a": pa.array(range(20_000), pa.float64())})
    took = statistics.median(manager.execute_morsels([Morsel(rows)], pipeline)[0].run_us for _ in range(20))
    return pa.record_batch({"a": pa.array(range(int(20_000 * milliseconds * 1000 / took)), pa.float64())}), pipeline


def _function(manager: TaskSlotManager, milliseconds: float) -> tuple[pa.RecordBatch, Operator]:
    def spin(_: pa.RecordBatch) -> None:
        end = time.perf_counter() + milliseconds / 1000
        while time.perf_counter() < end:
            pass

    return pa.record_batch({"a": [1]}), spin


def _measure(
    manager: TaskSlotManager, make: Callable[[TaskSlotManager, float], tuple[pa.RecordBatch, Operator]]
) -> str:
    long_rows, long_operator = make(manager, LONG_MS)
    short_rows, short_operator = make(manager, SHORT_MS)
    enough = threading.Event()
    started = threading.Event()

    def keep_busy() -> None:
        for _ in manager.execute_morsels([Morsel(long_rows)] * 100_000, long_operator, ordered=False, job="long"):
            started.set()
            if enough.is_set():
                return

    def requests() -> list[tuple[float, float]]:
        """When each was made, and the seconds that it took."""
        morsels = [Morsel(short_rows)] * SHORT_MORSELS
        took = []
        for _ in range(REQUESTS):
            made = time.time()
            results = manager.execute_morsels(morsels, short_operator, job="short")
            took.append((made, max(result.queue_us + result.run_us for result in results) / 1e6))
            time.sleep(0.002)
        return took

    alone_s = statistics.median(seconds for _, seconds in requests())
    long_job = threading.Thread(target=keep_busy)
    long_job.start()
    started.wait()
    under = requests()
    long_morsels = [
        (row["start"].timestamp(), row["end"].timestamp())
        for row in manager.get_timeline().to_pylist()
        if row["job"] == "long"
    ]
    enough.set()
    long_job.join()

    # Two jobs of equal weight: twice what half of the slots would give it, and the long morsel that ran when it came,
    # as long as that took: the machine may have put it aside for a while.
    def long_morsel_s(made: float) -> float:
        return max((end - start for start, end in long_morsels if start <= made < end), default=0.0)

    used = sorted(seconds / (2 * 2 * alone_s + long_morsel_s(made)) for made, seconds in under)
    median_s = statistics.median(seconds for _, seconds in under)
    return (
        f"alone {alone_s * 1e3:.2f} ms, under it {median_s * 1e3:.2f}; of twice its share and one long morsel the "
        f"median {statistics.median(used):.2f}, p99 {used[len(used) * 99 // 100]:.2f}"
    )
