"""Thirty-two jobs at once over two agents: exact answers, the memory limit kept, and none that waits for all others."""

from __future__ import annotations

import statistics
import threading
from pathlib import Path

import psutil
import pyarrow as pa

import sabot
from tests.agent.processes import AgentProcess, Agents

from .held_job import until

JOBS = 32
ROWS = 40_000
LIMIT = 256 << 20
SLACK = 150 << 20
TABLE = pa.table({"k": [i * 7919 % 5003 for i in range(ROWS)], "v": list(range(ROWS))})


def resident(agent: AgentProcess) -> int:
    """Of the agent and its nursery; what the workers hold counts into the same limit."""
    root = psutil.Process(agent.process.pid)
    total = 0
    for process in (root, *root.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def test_thirty_two_jobs_at_once_are_exact_and_keep_the_memory_limit(tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    environment = {"SABOT_MEMORY_BYTES_MAX": str(LIMIT)}
    try:
        first = agents.start("first", environment=environment)
        second = agents.start("second", "--join", first.control, environment=environment)
        until(lambda: len(first.members()) == 2)
        most = [0, 0]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                for place, agent in enumerate((first, second)):
                    most[place] = max(most[place], resident(agent))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            with sabot.connect(first.control, progress=False) as session:
                expected = TABLE.group_by("k").aggregate([("v", "sum")]).sort_by("k")
                begin = [session.from_table(TABLE).repartition("v", num_partitions=4) for _ in range(JOBS)]
                jobs = [data.group_by("k").aggregate([("v", "sum")]).submit(timeout_s=120) for data in begin]
                until(lambda: any(job.done() for job in jobs), deadline_s=120)
                assert all(job.progress.jobs_ahead == 0 for job in jobs), "none is queued behind the others"
                took_s = []
                for job in jobs:
                    with job.result() as result:
                        assert result.to_table().sort_by("k").select(["k", "v_sum"]).equals(expected)
                        assert result.receipt.exact
                        took_s.append(result.stats.elapsed_s)
        finally:
            done.set()
            watching.join()
        assert max(most) < 1.1 * LIMIT + SLACK, most
        assert max(took_s) < 3 * statistics.median(took_s), "one has starved"
    finally:
        agents.close()
