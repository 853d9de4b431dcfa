"""How long a short job takes under a long one, next to slots that are not fair.

That 99 of 100 requests keep the bound is shown on a clock that is told, by fair_queue_latency_test.cc, and measured on
a real one by benchmarks/slots.py.
"""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.native._native import MorselRun, SlotPool
from sabot.slots import Pipeline
from sabot.slots.operators import FunctionOrExpression, native_operator
from tests.slots.conftest import WAIT_S

SHORT_MORSELS = 10
Work = tuple[pa.RecordBatch, FunctionOrExpression]


def expression(seconds: float, pool: SlotPool) -> Work:
    term = pc.field("a")
    for _ in range(4):
        term = pc.sqrt(term * term + 1.0)
    pipeline = Pipeline([("project", ["b"], [term])])
    rows = pa.record_batch({"a": pa.array(range(20_000), pa.float64())})
    took_us = statistics.median(run(pool, (rows, pipeline), 1, "warm")[1] for _ in range(9))
    return pa.record_batch({"a": pa.array(range(int(20_000 * seconds * 1e6 / took_us)), pa.float64())}), pipeline


def function(seconds: float, pool: SlotPool) -> Work:
    def spin(_: pa.RecordBatch) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    return pa.record_batch({"a": [1]}), spin


def run(pool: SlotPool, work: Work, morsels: int, job: str) -> tuple[int, int]:
    """Microseconds from the submit to the end of the last morsel, and of the last morsel alone."""
    rows, operator = work
    run = MorselRun(native_operator(operator))
    for _ in range(morsels):
        run.add(rows, 0, rows.num_rows, 0, False)
    run.execute(pool, None, job)
    results = run.results()
    return max(result.queue_us + result.run_us for result in results), results[-1].run_us


def requests_under(pool: SlotPool, kind: str) -> list[int]:
    """Microseconds that a short job's requests take while two callers keep a long job going."""
    make = {"expression": expression, "function": function}[kind]
    long_work, short_work = make(0.005, pool), make(0.0001, pool)
    enough = threading.Event()

    def keep_busy() -> None:
        while not enough.is_set():
            run(pool, long_work, 2, "long")

    with ThreadPoolExecutor(2) as threads:
        busy = [threads.submit(keep_busy) for _ in range(2)]
        try:
            return [run(pool, short_work, SHORT_MORSELS, "short")[0] for _ in range(10)]
        finally:
            enough.set()
            for one in busy:
                one.result(WAIT_S)


# Not Python functions on two slots: whose turn it is there, the GIL says.
@pytest.mark.parametrize(("slots", "kind"), [(1, "expression"), (2, "expression"), (1, "function")])
def test_short_job_takes_less_than_half_of_what_it_does_where_jobs_take_turns(slots: int, kind: str) -> None:
    took: dict[bool, list[int]] = {True: [], False: []}
    for _ in range(3):  # alternately, since the machine may be busy with other things for a while
        for fair in (True, False):
            pool = SlotPool(slots, fair=fair)
            try:
                took[fair] += requests_under(pool, kind)
            finally:
                pool.shutdown(False)
    assert 2 * statistics.median(took[True]) < statistics.median(took[False])
