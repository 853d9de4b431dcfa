"""A million made-up sensor readings, and the frame that both examples share: two agents, or a running cluster."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable

import pyarrow as pa

import sabot
from sabot.client.session import Session

SENSORS = 50


def make_readings(rows: int, seed: int = 7) -> pa.Table:
    """Readings of SENSORS sensors in random order: sensor, second, value."""
    rng = random.Random(seed)
    seconds = rng.sample(range(10 * rows), rows)
    return pa.table(
        {
            "sensor": pa.array([second % SENSORS for second in seconds], pa.int32()),
            "second": pa.array(seconds, pa.int64()),
            "value": pa.array([rng.gauss(20, 5) for _ in seconds], pa.float64()),
        }
    )


def run_example(description: str, jumps: Callable[[Session, pa.Table], pa.Table]) -> None:
    """Computes and prints the largest jumps."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--agent", metavar="HOST:PORT", help="a running cluster; default: start two agents")
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    readings = make_readings(arguments.rows)
    if arguments.agent:
        with sabot.connect(arguments.agent) as session:
            print(jumps(session, readings).to_pylist())
    else:
        with sabot.LocalCluster(agents=2, slots=1) as cluster, cluster.connect() as session:
            print(jumps(session, readings).to_pylist())
