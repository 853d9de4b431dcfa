"""Polars' turn in benchmarks/tpch.py: two threads of this process, its streaming engine.

`python tpch_polars.py --lineitem FILES... --orders FILES...`
"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
from tables import tables_of_arguments
from turns import serve

os.environ["POLARS_MAX_THREADS"] = "2"

import polars as pl


def main() -> None:
    lineitem, orders = tables_of_arguments()
    totals = pl.col("l_quantity").sum().alias("l_quantity_sum"), pl.len().alias("count_all")

    def groups() -> pl.LazyFrame:
        return pl.scan_parquet(lineitem).group_by("l_orderkey").agg(*totals)

    def group(_: Path) -> pa.Table:
        added = groups().select(pl.len(), pl.col("l_quantity_sum").sum(), pl.col("count_all").sum())
        return added.collect(engine="streaming").to_arrow()

    def fetch(_: Path) -> pa.Table:
        return groups().collect(engine="streaming").to_arrow()

    def join(_: Path) -> pa.Table:
        joined = pl.scan_parquet(lineitem).join(pl.scan_parquet(orders), left_on="l_orderkey", right_on="o_orderkey")
        return joined.group_by("o_orderpriority").agg(*totals).collect(engine="streaming").to_arrow()

    def files(folder: Path) -> None:
        lines = pl.scan_parquet(lineitem).with_columns(part=pl.col("l_orderkey").hash() % 16)
        lines.sink_parquet(pl.PartitionBy(folder, key="part"), compression="snappy", engine="streaming", mkdir=True)

    serve({"group": group, "fetch": fetch, "join": join, "files": files})


if __name__ == "__main__":
    main()
