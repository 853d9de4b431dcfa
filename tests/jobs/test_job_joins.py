"""A join that takes long, in agents of two slots: other jobs get their share, and a cancel frees the slots."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sabot.dataflow.dataset import Dataset
from sabot.errors import JobCancelled
from sabot.slots import TaskSlotManager

from .in_process import WAIT_S, InProcessCluster
from .rows import make_table, write_files

# All rows have one key, so that one agent joins them all, where hot partitions are
# not shared: 2,000,000 rows by 400, of which each batch is a task.
LEFT = pa.table({"k": pa.repeat(pa.scalar(7, pa.int8()), 2_000_000)})
RIGHT = LEFT.slice(0, 400)
FREE_S_MAX = 5.0


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    with InProcessCluster(2, slots=2, **{"shuffle.hot_partition_factor": 1_000_000}) as running:
        yield running
        running.check_nothing_held()


class Plans:
    """Says of every plan that a task gives to all slots of its agent when it began, and how it ended."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.began = threading.Event()
        self.ends: list[str] = []
        run_plan = TaskSlotManager.run_plan

        def watched(manager: TaskSlotManager, *arguments: Any, **options: Any) -> pa.Table:
            if manager.native_pool.on_slot_thread():
                return run_plan(manager, *arguments, **options)
            self.began.set()
            try:
                answer = run_plan(manager, *arguments, **options)
            except BaseException as error:
                self.ends.append(type(error).__name__)
                raise
            self.ends.append(f"{answer.num_rows} rows")
            return answer

        patch.setattr(TaskSlotManager, "run_plan", watched)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Plans:
    return Plans(monkeypatch)


@pytest.fixture
def long_join(cluster: InProcessCluster, tmp_path: Path) -> Dataset:
    session = cluster.connect()
    left = session.read_parquet(write_files(tmp_path / "left", LEFT, row_group_rows=100_000))
    return left.join(session.read_parquet(write_files(tmp_path / "right", RIGHT)), ["k"], join_type="inner")


def processed(cluster: InProcessCluster) -> int:
    stats = [slot for agent in cluster.agents for slot in agent.seat.task_slot_manager.get_slot_stats()]
    return sum(slot["morsels_processed"] for slot in stats)


def wait_until_it_is_in_the_slots(cluster: InProcessCluster, plans: Plans) -> None:
    assert plans.began.wait(WAIT_S)
    before = processed(cluster)
    cluster.wait_until(lambda: processed(cluster) >= before + 5)


def slots_are_free(cluster: InProcessCluster) -> bool:
    managers = [agent.seat.task_slot_manager for agent in cluster.agents]
    return all(slots.get_available_slots() == 2 and slots.get_queue_depth() == 0 for slots in managers)


def test_cancel_in_mid_join_frees_the_slots(cluster: InProcessCluster, long_join: Dataset, plans: Plans) -> None:
    job = long_join.submit()
    wait_until_it_is_in_the_slots(cluster, plans)
    job.cancel()
    closed_s = time.monotonic()
    cluster.wait_until(lambda: bool(plans.ends) and slots_are_free(cluster))
    assert time.monotonic() - closed_s < FREE_S_MAX
    assert plans.ends == [JobCancelled.__name__]  # it ended early, not by itself


def test_small_job_gets_its_share_beside_a_long_join(
    cluster: InProcessCluster, long_join: Dataset, plans: Plans, tmp_path: Path
) -> None:
    small = cluster.connect().read_parquet(write_files(tmp_path / "small", make_table(4000))).repartition("k")
    job = long_join.submit()
    try:
        wait_until_it_is_in_the_slots(cluster, plans)
        assert small.count_rows() == 4000
        assert plans.ends == []  # the join is still at it
    finally:
        job.cancel()
