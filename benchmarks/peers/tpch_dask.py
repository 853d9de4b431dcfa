"""Dask's turn in benchmarks/tpch.py: two worker processes of one thread, shuffles by P2P.

`python tpch_dask.py --lineitem FILES... --orders FILES...`
"""

from __future__ import annotations

from pathlib import Path

import dask
import dask.dataframe as dd
import pyarrow as pa
from distributed import Client, LocalCluster
from tables import tables_of_arguments
from turns import serve

_TOTALS = ["sum", "count"]


def main() -> None:
    lineitem, orders = tables_of_arguments()
    dask.config.set({"dataframe.shuffle.method": "p2p", "distributed.logging.distributed": "error"})

    def read(files: list[str], columns: list[str] | None = None) -> dd.DataFrame:
        return dd.read_parquet(files, columns=columns, dtype_backend="pyarrow")

    def groups() -> dd.DataFrame:
        lines = read(lineitem, ["l_orderkey", "l_quantity"])
        return lines.groupby("l_orderkey", sort=False).l_quantity.agg(_TOTALS, split_out=2)

    def group(_: Path) -> pa.Table:
        found = groups()
        added = dask.compute(found.index.size, found["sum"].sum(), found["count"].sum())
        return pa.table({name: [value] for name, value in zip(("groups", *_TOTALS), added, strict=True)})

    def fetch(_: Path) -> pa.Table:
        return pa.Table.from_pandas(groups().compute().reset_index(), preserve_index=False)

    def join(_: Path) -> pa.Table:
        lines, by = read(lineitem, ["l_orderkey", "l_quantity"]), read(orders, ["o_orderkey", "o_orderpriority"])
        joined = lines.merge(by, left_on="l_orderkey", right_on="o_orderkey")
        return pa.Table.from_pandas(
            joined.groupby("o_orderpriority").l_quantity.agg(_TOTALS).compute().reset_index(), preserve_index=False
        )

    def files(folder: Path) -> None:
        shuffled = read(lineitem).shuffle(on="l_orderkey", npartitions=16)
        shuffled.to_parquet(folder, compression="snappy", write_index=False)

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        serve({"group": group, "fetch": fetch, "join": join, "files": files})


if __name__ == "__main__":
    main()
