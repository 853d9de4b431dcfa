"""Jobs of sessions with different weights share an agent's slot by them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import sabot
from sabot import LocalCluster
from sabot.cli.agent_call import call_agent
from sabot.client.session import Session
from sabot.errors import UsageError
from sabot.wire import agent_pb2

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
    end = time.monotonic() + 0.003
    while time.monotonic() < end:
        pass
    return pa.record_batch({"ended": [time.monotonic()], "rows": [rows.num_rows]})


def holding(go_on: Path) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Keeps the slot until the file is there, and pays for what pyarrow imports with the first Python value: pandas."""

    def hold(rows: pa.RecordBatch) -> pa.RecordBatch:
        pa.array([0.0])
        while not go_on.exists() and go_on.parent.exists():
            threading.Event().wait(0.005)
        return rows

    return hold


def wait_for_morsels(session: Session, count: int) -> None:
    """Until so many wait for the agent's slot."""
    [agent] = session.agents()
    deadline = time.monotonic() + 30
    while call_agent(agent.control_address, "GetStatus", agent_pb2.StatusRequest(), timeout_s=30).queue_depth != count:
        assert time.monotonic() < deadline


def slot_time(ended: dict[str, list[float]]) -> dict[str, float]:
    """What each job used of the one slot while both had work: a morsel's time is from the end of the one before it."""
    since = max(min(times) for times in ended.values())
    until = min(max(times) for times in ended.values())
    order = sorted((end, job) for job, times in ended.items() for end in times if since <= end <= until)
    used = dict.fromkeys(ended, 0.0)
    for (before, _), (end, job) in itertools.pairwise(order):
        used[job] += end - before
    return used


def test_jobs_of_weight_one_and_three_get_a_quarter_and_three_quarters(agent: LocalCluster, tmp_path: Path) -> None:
    schema = pa.schema({"ended": pa.float64(), "rows": pa.int64()})
    numbers = pa.table({"a": pa.array(range(MORSELS * ROWS_PER_MORSEL), pa.int64())})
    with (
        agent.connect(progress=False) as light_session,
        agent.connect(progress=False, weight=3.0) as heavy_session,
    ):
        sessions = {"light": light_session, "heavy": heavy_session}
        # All morsels of both wait before the first one runs: however slow the machine, both jobs have work.
        go_on = tmp_path / "go on"
        one_row = light_session.from_table(numbers.slice(0, 1))
        holder = one_row.map_batches(holding(go_on), schema=numbers.schema, processes=False).submit()
        jobs = {
            name: session.from_table(numbers).map_batches(spent, schema=schema, processes=False).submit()
            for name, session in sessions.items()
        }
        wait_for_morsels(light_session, 2 * MORSELS)
        go_on.touch()
        tables = {name: job.result().to_table() for name, job in jobs.items()}
        holder.result().close()
    assert {sum(table["rows"].to_pylist()) for table in tables.values()} == {numbers.num_rows}
    used = slot_time({name: table["ended"].to_pylist() for name, table in tables.items()})
    assert used["light"] / sum(used.values()) == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize("weight", [0, -1.0, float("nan"), 1e7, "3"])
def test_weight_that_is_none_is_a_usage_error_before_anything_is_asked(weight: Any, dead_address: str) -> None:
    with pytest.raises(UsageError, match="weight is"):
        sabot.connect(dead_address, weight=weight)
