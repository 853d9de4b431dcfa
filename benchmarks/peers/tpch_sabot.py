"""Sabot's turn in benchmarks/tpch.py: two agents of one slot, and a session in this process.

`python tpch_sabot.py --lineitem FILES... --orders FILES...`
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from tables import tables_of_arguments
from turns import serve

import sabot


def main() -> None:
    lineitem, orders = tables_of_arguments()
    with sabot.LocalCluster(agents=2, slots=1) as cluster, cluster.connect(progress=False) as session:

        def groups() -> sabot.Dataset:
            lines = session.read_parquet(lineitem, columns=["l_orderkey", "l_quantity"])
            return lines.group_by("l_orderkey").aggregate([("l_quantity", "sum"), ([], "count_all")])

        def group(_: Path) -> pa.Table:
            added = [("l_orderkey", "count"), ("l_quantity_sum", "sum"), ("count_all", "sum")]
            return groups().group_by([]).aggregate(added).to_table()

        def fetch(_: Path) -> pa.Table:
            return groups().to_table()

        def join(_: Path) -> pa.Table:
            lines = session.read_parquet(lineitem, columns=["l_orderkey", "l_quantity"])
            by = session.read_parquet(orders, columns=["o_orderkey", "o_orderpriority"])
            joined = lines.join(by, "l_orderkey", "o_orderkey", join_type="inner")
            return joined.group_by("o_orderpriority").aggregate([("l_quantity", "sum"), ([], "count_all")]).to_table()

        def files(folder: Path) -> None:
            session.read_parquet(lineitem).repartition("l_orderkey", 16).write_dataset(folder, format="parquet")

        serve({"group": group, "fetch": fetch, "join": join, "files": files})


if __name__ == "__main__":
    main()
