"""How the slots share their time between jobs of different weights, and a set with one far larger morsel among them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence

import pyarrow as pa

from sabot.slots import Morsel, TaskSlotManager

TIMES = 100  # the large morsel's time, in those of the others
UNIT_S = 0.0002
BAR = 1.15


def print_sharing(seconds: float) -> None:
    """The slot's time that two jobs of weight 1 and 3 get of one slot while both have work.

    A morsel's time is from the end of the function's last call to the end of this one: also while a morsel is made of
    his rows, and the GIL changes hands, the slot is the job's.
    """
    used = {"light": 0.0, "heavy": 0.0}
    ended = [0.0]
    stop = threading.Event()
    held = threading.Event()

    def work(name: str, work_s: float) -> Callable[[pa.RecordBatch], None]:
        def spin(_: pa.RecordBatch) -> None:
            if stop.is_set():
                return
            start = time.perf_counter()
            while time.perf_counter() - start < work_s:
                pass
            last, ended[0] = ended[0] or start, time.perf_counter()
            used[name] += ended[0] - last
            if sum(used.values()) > seconds:
                stop.set()

        return spin

    with TaskSlotManager(num_slots=1) as manager:
        manager.call_in_slot(held.wait)
        morsels = [Morsel(pa.record_batch({"a": [1]}))] * 50_000
        calls = [
            threading.Thread(target=manager.execute_morsels, args=(morsels, work(name, work_s)), kwargs=share)
            for name, work_s, share in (
                ("light", 0.005, {"job": "light", "weight": 1}),
                ("heavy", 0.0001, {"job": "heavy", "weight": 3}),
            )
        ]
        for call in calls:
            call.start()
        while manager.get_queue_depth() < 2 * len(morsels):
            time.sleep(0.001)
        held.set()
        for call in calls:
            call.join()
    total = sum(used.values())
    print(f"weights 1 and 3, morsels of 5 and 0.1 ms: {used['light'] / total:.1%} and {used['heavy'] / total:.1%}")


def print_skew(rng: random.Random) -> None:
    """Makespan of a set with one large morsel, next to the ideal: what its morsels took, divided by the slots."""
    cases = {
        "200 morsels, the last large, as its rows show": skewed(199, 199, shown=True),
        "1,000 morsels, a random one large, which rows do not show": skewed(999, rng.randrange(1_000), shown=False),
    }
    print(f"one morsel of {TIMES} times the others on 2 slots, bar {BAR}:")
    with TaskSlotManager(num_slots=2) as manager:
        for name, morsels in cases.items():
            print(f"  {name}: {sorted(makespan_ratio(manager, morsels) for _ in range(5))[2]:.3f} x the ideal")


def skewed(others: int, place: int, *, shown: bool) -> list[Morsel]:
    """Morsels of one row that says how long to sleep, or of as many rows."""
    rows = pa.record_batch({"units": pa.array([1] * TIMES + [TIMES], pa.int64())})
    small, large = Morsel(rows, 0, 1), Morsel(rows, 0, TIMES) if shown else Morsel(rows, TIMES, 1)
    return [*([small] * place), large, *([small] * (others - place))]


def makespan_ratio(manager: TaskSlotManager, morsels: Sequence[Morsel]) -> float:
    """1: the slots ended together, and were busy all the time."""

    def sleep(rows: pa.RecordBatch) -> None:
        time.sleep(rows.num_rows * rows["units"][0].as_py() * UNIT_S)

    start = time.perf_counter()
    results = manager.execute_morsels(morsels, sleep)
    took = time.perf_counter() - start
    # A sleep lasts longer than asked for; what it took is in the results.
    return took / (sum(result.run_us for result in results) / 1e6 / manager.get_num_slots())
