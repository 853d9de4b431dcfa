"""Ray Data's turn in benchmarks/tpch.py: a cluster of two CPUs on this machine, shuffles by hash.

`python tpch_ray.py --lineitem FILES... --orders FILES...`
"""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset
from ray.data.aggregate import Count, Sum
from ray.data.context import ShuffleStrategy
from tables import tables_of_arguments
from turns import serve


def main() -> None:
    lineitem, orders = tables_of_arguments()
    ray.init(
        num_cpus=2,
        _node_ip_address="127.0.0.1",
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.shuffle_strategy = ShuffleStrategy.HASH_SHUFFLE
    totals = Sum("l_quantity", alias_name="l_quantity_sum"), Count(alias_name="count_all")

    def collected(dataset: Dataset) -> pa.Table:
        return pa.concat_tables(ray.get(dataset.to_arrow_refs()))

    def groups() -> Dataset:
        lines = ray.data.read_parquet(lineitem, columns=["l_orderkey", "l_quantity"])
        return lines.groupby("l_orderkey", num_partitions=4).aggregate(*totals)

    def group(_: Path) -> pa.Table:
        added = groups().aggregate(Count("l_orderkey"), Sum("l_quantity_sum"), Sum("count_all"))
        return pa.table({name: [value] for name, value in added.items()})

    def fetch(_: Path) -> pa.Table:
        return collected(groups())

    def join(_: Path) -> pa.Table:
        lines = ray.data.read_parquet(lineitem, columns=["l_orderkey", "l_quantity"])
        by = ray.data.read_parquet(orders, columns=["o_orderkey", "o_orderpriority"])
        joined = lines.join(by, "inner", 4, on=("l_orderkey",), right_on=("o_orderkey",))
        return collected(joined.groupby("o_orderpriority", num_partitions=4).aggregate(*totals))

    def files(folder: Path) -> None:
        shuffled = ray.data.read_parquet(lineitem).repartition(16, keys=["l_orderkey"])
        shuffled.write_parquet(str(folder), compression="snappy")

    serve({"group": group, "fetch": fetch, "join": join, "files": files})
    ray.shutdown()


if __name__ == "__main__":
    main()
