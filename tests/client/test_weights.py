"""Jobs of sessions with different weights share an agent's slot by them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest

import sabot
from sabot import LocalCluster
from sabot.errors import UsageError

ROWS_PER_MORSEL = 128
MORSELS = 400


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """One agent with one slot, whose morsels are small."""
    monkeypatch.setenv("SABOT_SLOTS_MORSEL_BYTES", str(8 * ROWS_PER_MORSEL))
    with LocalCluster(agents=1, slots=1) as running:
        yield running


def spent(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Keeps the slot for a while and says when it was done, on a clock that all processes share."""
    import time

    end = time.monotonic() + 0.003
    while time.monotonic() < end:
        pass
    return pa.record_batch({"ended": [time.monotonic()], "rows": [rows.num_rows]})


def slot_time(ended: dict[str, list[float]]) -> dict[str, float]:
    """What each job used of the one slot while both had work: a morsel's time is from the end of the one before it."""
    since = max(min(times) for times in ended.values())
    until = min(max(times) for times in ended.values())
    order = sorted((time, job) for job, times in ended.items() for time in times if since <= time <= until)
    used = dict.fromkeys(ended, 0.0)
    for (before, _), (time, job) in itertools.pairwise(order):
        used[job] += time - before
    return used


def test_jobs_of_weight_one_and_three_get_a_quarter_and_three_quarters(agent: LocalCluster) -> None:
    schema = pa.schema({"ended": pa.float64(), "rows": pa.int64()})
    numbers = pa.table({"a": pa.array(range(MORSELS * ROWS_PER_MORSEL), pa.int64())})
    together = threading.Barrier(2)

    def run(weight: float) -> list[float]:
        with agent.connect(progress=False, weight=weight) as session:
            job = session.from_table(numbers).map_batches(spent, schema=schema, processes=False)
            together.wait(30)
            table = job.to_table()
        assert sum(table["rows"].to_pylist()) == numbers.num_rows
        ended: list[float] = table["ended"].to_pylist()
        return ended

    with ThreadPoolExecutor(2) as threads:
        calls = {name: threads.submit(run, weight) for name, weight in (("light", 1.0), ("heavy", 3.0))}
        used = slot_time({name: call.result(60) for name, call in calls.items()})
    assert used["light"] / sum(used.values()) == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize("weight", [0, -1.0, float("nan"), 1e7, "3"])
def test_weight_that_is_none_is_a_usage_error_before_anything_is_asked(weight: Any, dead_address: str) -> None:
    with pytest.raises(UsageError, match="weight is"):
        sabot.connect(dead_address, weight=weight)
