"""What it costs a job on four agents when one of them is killed at a random moment of it.

Each kill has a cluster of its own, which has run the job before: to warm up, and undisturbed, for the time that the
kill's is held against. The moment is uniform over that time; a kill that came after the job's end counts for nothing.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

import sabot

AGENTS = 4
_COLUMNS = {"lineitem": ["l_orderkey", "l_quantity"], "orders": ["o_orderkey", "o_orderpriority"]}


def measure_kills(lineitem: Sequence[Path], orders: Sequence[Path], kills: int, rng: random.Random) -> None:
    """lineitem joined with orders, grouped by o_orderpriority; each answer is compared with the undisturbed one."""
    costs, plain = [], []
    for _ in range(kills):
        with sabot.LocalCluster(agents=AGENTS, slots=1) as cluster, cluster.connect(progress=False) as session:
            _seconds_and_answer(session, lineitem, orders)
            undisturbed_s, right = _seconds_and_answer(session, lineitem, orders)
            victim = cluster.agents[rng.randrange(1, AGENTS)]  # the first one coordinates
            moment_s = rng.uniform(0, undisturbed_s)
            killer = threading.Timer(moment_s, victim.kill)
            killer.start()
            took_s, answer = _seconds_and_answer(session, lineitem, orders)
            hit = killer.finished.is_set() and took_s > moment_s
            killer.join()
        if answer != right:
            raise SystemExit(f"the answer after a kill at {moment_s:.3f} s is wrong:\n{answer}\n{right}")
        print(f"  killed after {moment_s:.2f} s: {took_s:.2f} s where {undisturbed_s:.2f} is usual", flush=True)
        if hit:
            costs.append(took_s - undisturbed_s)
            plain.append(undisturbed_s)
    if not costs:
        raise SystemExit("no kill came during a job; give more of them")
    usual_s, cost_s = statistics.median(plain), statistics.median(costs)
    print(f"that join on {AGENTS} agents x 1 slot, one killed at random, {kills} times, {len(costs)} while it ran:")
    print(f"  all right; {usual_s:.2f} s without; a kill costs {cost_s:.2f} s more, at most {max(costs):.2f}")
    print(f"  that is {cost_s / usual_s:.2f} of the job's own time; wanted: at most 0.5")


def _seconds_and_answer(
    session: sabot.Session, lineitem: Sequence[Path], orders: Sequence[Path]
) -> tuple[float, pa.Table]:
    start_s = time.perf_counter()
    lines = session.read_parquet(lineitem, columns=_COLUMNS["lineitem"])
    joined = lines.join(
        session.read_parquet(orders, columns=_COLUMNS["orders"]), "l_orderkey", "o_orderkey", join_type="inner"
    )
    grouped = joined.group_by("o_orderpriority").aggregate([("l_quantity", "sum"), ([], "count_all")])
    answer = grouped.to_table()
    return time.perf_counter() - start_s, answer.sort_by("o_orderpriority")
