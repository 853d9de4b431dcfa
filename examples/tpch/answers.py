"""DuckDB's opinion of the answers, from the same files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa

from .sql import SQL
from .tables import NAMES

Row = tuple[object, ...]


def duckdb_answers(folder: Path, numbers: Sequence[int]) -> dict[int, list[Row]]:
    """The rows of each query over the tables in `folder`, in its order."""
    with duckdb.connect() as database:
        for name in NAMES:
            database.execute(f"create view {name} as select * from read_parquet('{folder}/{name}/*.parquet')")
        return {number: database.execute(SQL[number]).fetchall() for number in numbers}


def same_rows(answer: pa.Table, rows: Sequence[Row]) -> bool:
    """Whether both have the same values in the same order: decimals exactly, floats within 1e-9 of themselves."""
    ours = [tuple(row.values()) for row in answer.to_pylist()]
    return len(ours) == len(rows) and all(
        len(left) == len(right) and all(map(_same, left, right)) for left, right in zip(ours, rows, strict=True)
    )


def _same(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float | Decimal):
        return math.isclose(left, right, rel_tol=1e-9)
    return left == right
