"""Sail's turn in benchmarks/tpch.py: its local cluster of two workers with one slot each, and a client in this process.

`python tpch_sail.py --lineitem FILES... --orders FILES...`

A job runs only where there is a slot for every task of all its stages at once, so that it cannot shuffle into 16.
"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
from tables import tables_of_arguments
from turns import serve

os.environ |= {
    "SAIL_MODE": "local-cluster",
    "SAIL_CLUSTER__WORKER_INITIAL_COUNT": "2",
    "SAIL_CLUSTER__WORKER_MAX_COUNT": "2",
    "SAIL_CLUSTER__WORKER_TASK_SLOTS": "1",
    "SAIL_CLUSTER__WORKER_MAX_IDLE_TIME_SECS": "3600",
    "SAIL_EXECUTION__DEFAULT_PARALLELISM": "2",
}

from pysail.spark import SparkConnectServer
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f


def main() -> None:
    lineitem, orders = tables_of_arguments()
    server = SparkConnectServer()
    server.start()
    _, port = server.listening_address
    spark = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
    totals = f.sum("l_quantity").alias("l_quantity_sum"), f.count("*").alias("count_all")

    def groups() -> DataFrame:
        return spark.read.parquet(*lineitem).groupBy("l_orderkey").agg(*totals)

    def group(_: Path) -> pa.Table:
        added = f.count("l_orderkey"), f.sum("l_quantity_sum"), f.sum("count_all")
        return groups().agg(*added).toArrow()

    def fetch(_: Path) -> pa.Table:
        return groups().toArrow()

    def join(_: Path) -> pa.Table:
        lines, by = spark.read.parquet(*lineitem), spark.read.parquet(*orders)
        joined = lines.join(by, lines.l_orderkey == by.o_orderkey)
        return joined.groupBy("o_orderpriority").agg(*totals).toArrow()

    serve({"group": group, "fetch": fetch, "join": join})
    spark.stop()
    server.stop()


if __name__ == "__main__":
    main()
