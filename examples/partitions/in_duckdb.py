"""SQL of DuckDB inside a distributed job: how far does a reading lie from the mean of its sensor's five before it?

A window needs the rows of one sensor together and nothing else: `repartition` brings them together, and DuckDB answers
for each partition in a worker process. Run it with `python -m examples.partitions.in_duckdb`.
"""

from __future__ import annotations

import pyarrow as pa

from examples.partitions.readings import run_example
from sabot.client.session import Session

WINDOW = """
    select sensor, second, abs(value - avg(value) over (
        partition by sensor order by second rows between 5 preceding and 1 preceding)) as jump
    from readings
"""


def window(readings: pa.Table) -> pa.Table:
    """Runs in a worker, once for each partition."""
    import duckdb

    with duckdb.connect(config={"threads": 1}) as connection:  # the slots are the threads
        connection.register("readings", readings)
        return connection.sql(WINDOW).to_arrow_table()


def largest_jumps(session: Session, readings: pa.Table, count: int = 5) -> pa.Table:
    """The `count` readings that lie farthest from the five before them."""
    windows = session.from_table(readings).repartition("sensor").map_partitions(window)
    return windows.sort_by([("jump", "descending")]).head(count).to_table()


if __name__ == "__main__":
    run_example(__doc__.partition("\n")[0], largest_jumps)
