"""DuckDB's turn in benchmarks/tpch.py: two threads of this process.

`python tpch_duckdb.py --lineitem FILES... --orders FILES...`
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
from tables import tables_of_arguments
from turns import serve

_TOTALS = "sum(l_quantity) AS l_quantity_sum, count(*) AS count_all"


def main() -> None:
    lineitem, orders = tables_of_arguments()
    connection = duckdb.connect(config={"threads": 2})

    def answer(sql: str) -> pa.Table:
        return connection.sql(sql).to_arrow_table()

    groups = f"SELECT l_orderkey, {_TOTALS} FROM read_parquet({lineitem}) GROUP BY ALL"

    def group(_: Path) -> pa.Table:
        return answer(f"SELECT count(*), sum(l_quantity_sum), sum(count_all) FROM ({groups})")

    def fetch(_: Path) -> pa.Table:
        return answer(groups)

    def join(_: Path) -> pa.Table:
        joined = f"read_parquet({lineitem}) JOIN read_parquet({orders}) ON l_orderkey = o_orderkey"
        return answer(f"SELECT o_orderpriority, {_TOTALS} FROM {joined} GROUP BY ALL")

    def files(folder: Path) -> None:
        options = "FORMAT parquet, PARTITION_BY (part), COMPRESSION snappy"
        rows = f"SELECT *, hash(l_orderkey) % 16 AS part FROM read_parquet({lineitem})"
        connection.sql(f"COPY ({rows}) TO '{folder}' ({options}, OVERWRITE_OR_IGNORE)")

    serve({"group": group, "fetch": fetch, "join": join, "files": files})


if __name__ == "__main__":
    main()
