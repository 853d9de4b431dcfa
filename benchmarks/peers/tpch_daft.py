"""Daft's turn in benchmarks/tpch.py: its native runner, in this process, on all cores.

`python tpch_daft.py --lineitem FILES... --orders FILES...`
"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
from tables import tables_of_arguments
from turns import serve

os.environ["DAFT_PROGRESS_BAR"] = "0"

import daft
from daft import col


def main() -> None:
    lineitem, orders = tables_of_arguments()
    daft.set_runner_native()
    totals = col("l_quantity").sum().alias("l_quantity_sum"), col("l_quantity").count("all").alias("count_all")

    def groups() -> daft.DataFrame:
        return daft.read_parquet(lineitem).groupby("l_orderkey").agg(*totals)

    def group(_: Path) -> pa.Table:
        return groups().agg(col("l_orderkey").count(), col("l_quantity_sum").sum(), col("count_all").sum()).to_arrow()

    def fetch(_: Path) -> pa.Table:
        return groups().to_arrow()

    def join(_: Path) -> pa.Table:
        joined = daft.read_parquet(lineitem).join(
            daft.read_parquet(orders), left_on="l_orderkey", right_on="o_orderkey"
        )
        return joined.groupby("o_orderpriority").agg(*totals).to_arrow()

    def files(folder: Path) -> None:
        lines = daft.read_parquet(lineitem).with_column("part", col("l_orderkey").hash() % 16)
        lines.write_parquet(str(folder), compression="snappy", partition_cols=["part"])

    serve({"group": group, "fetch": fetch, "join": join, "files": files})


if __name__ == "__main__":
    main()
