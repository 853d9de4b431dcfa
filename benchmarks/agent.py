"""What an idle agent costs, how fast four of them start and stop, and how soon a small job answers.

`python benchmarks/agent.py [--idle-s 30]`. Bars: idle below 0.5% of one core and 150 MB resident for the whole process
tree; four agents up within 5 s and down within 2 s.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import threading
import time

import psutil
import pyarrow as pa

import sabot


def tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_s(pid: int) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in tree(pid)))


def resident_mb(pid: int) -> float:
    return sum(process.memory_info().rss for process in tree(pid)) / 1e6


def measure_idle(cluster: sabot.LocalCluster, idle_s: float) -> None:
    pids = [agent.pid for agent in cluster.agents]
    before = [cpu_s(pid) for pid in pids]
    threading.Event().wait(idle_s)
    for pid, had in zip(pids, before, strict=True):
        percent = 100 * (cpu_s(pid) - had) / idle_s
        print(f"idle agent {pid}: {percent:.2f}% of one core over {idle_s:g} s, {resident_mb(pid):.0f} MB resident")


def measure_small_jobs(cluster: sabot.LocalCluster, count: int) -> None:
    session = cluster.connect()
    table = session.from_table(pa.table({"number": [1, 2, 3]}))
    table.to_table()
    times = []
    for _ in range(count):
        start = time.perf_counter()
        table.to_table()
        times.append(1000 * (time.perf_counter() - start))
    quartiles = statistics.quantiles(times, n=4)
    print(
        f"job of one table of three rows: median {quartiles[1]:.1f} ms, quartiles {quartiles[0]:.1f}-{quartiles[2]:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle-s", type=float, default=30.0)
    options = parser.parse_args()
    print(
        f"{platform.platform()}, {psutil.cpu_count()} cores, Python {sys.version.split()[0]}, pyarrow {pa.__version__}"
    )
    start = time.perf_counter()
    with sabot.LocalCluster(agents=4, slots=1) as cluster:
        print(f"four agents up in {time.perf_counter() - start:.2f} s")
        threading.Event().wait(1.0)  # what starting left to do is not idling
        measure_idle(cluster, options.idle_s)
        measure_small_jobs(cluster, 50)
        start = time.perf_counter()
    print(f"four agents down in {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
