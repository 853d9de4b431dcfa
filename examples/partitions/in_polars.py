"""Polars inside a distributed job: how far does a reading lie from the mean of its sensor's five before it?

As in_duckdb.py, with Polars, which the agents must have. Run it with `python -m examples.partitions.in_polars`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from examples.partitions.readings import run_example
from sabot.client.session import Session


def window(readings: pa.Table) -> Any:
    """Runs in a worker, once for each partition; a Polars frame is a good answer."""
    import polars as pl

    value = pl.col("value")
    before = value.shift(1).rolling_mean(window_size=5, min_samples=1).over("sensor", order_by="second")
    return pl.from_arrow(readings).select("sensor", "second", jump=(value - before).abs())


def largest_jumps(session: Session, readings: pa.Table, count: int = 5) -> pa.Table:
    """The `count` readings that lie farthest from the five before them."""
    windows = session.from_table(readings).repartition("sensor").map_partitions(window)
    return windows.sort_by([("jump", "descending")]).head(count).to_table()


if __name__ == "__main__":
    run_example(__doc__.partition("\n")[0], largest_jumps)
