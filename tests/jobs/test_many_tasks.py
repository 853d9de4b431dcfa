"""Thousands of tasks in one job, and what coordinating them costs its agent over what the other one works."""

from __future__ import annotations

from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sabot import LocalCluster

from .job_world import group_plan, kinds, make_coordinator, member, run_to_end

TASKS, ROWS, FILES = 5_000, 200, 10
COST_S = 0.001


@pytest.mark.timeout(300)
def test_coordinator_spends_less_than_a_millisecond_on_a_task(tmp_path: Path) -> None:
    rows = TASKS * ROWS // FILES
    for file in range(FILES):
        numbers = pa.array(range(file * rows, (file + 1) * rows), pa.int64())
        pq.write_table(
            pa.table({"v": numbers}), tmp_path / f"{file}.parquet", row_group_size=ROWS, use_dictionary=False
        )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SABOT_JOBS_SPLIT_BYTES", "1 KiB")
        with LocalCluster(agents=2, slots=1) as cluster, cluster.connect(progress=False) as session:
            coordinator, other = (psutil.Process(agent.pid) for agent in cluster.agents)
            data = session.read_parquet(str(tmp_path))
            before = _cpu_s(coordinator) - _cpu_s(other)
            with data.repartition("v").run() as result:
                assert sorted(result.to_table()["v"].to_pylist()) == list(range(TASKS * ROWS))
                tasks = sum(stage.tasks_total for stage in result.stats.stages)
            cost_s = (_cpu_s(coordinator) - _cpu_s(other) - before) / tasks
    print(f"{tasks:,} tasks: coordinating takes {cost_s * 1e6:.0f} us of CPU a task")
    assert tasks >= TASKS
    assert cost_s < COST_S


def test_plan_of_thousands_of_tasks_starts_each_once() -> None:
    plan = group_plan(*[1] * 5000)
    commands = run_to_end(plan, make_coordinator(plan, *[member(index, slots=4) for index in range(4)]))
    assert kinds(commands)["StartTask"] == 5000 + 32


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
