"""Rows for the tests, as tables and as files, and a way to compare them whatever their order."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def make_table(rows: int) -> pa.Table:
    return pa.table(
        {
            "k": pa.array([i * 7919 % 97 for i in range(rows)], pa.int64()),
            "v": pa.array(range(rows), pa.int64()),
            "word": pa.array([f"word {i % 13}" for i in range(rows)], pa.string()),
        }
    )


def write_files(folder: Path, table: pa.Table, *, files: int = 4, row_group_rows: int = 1000) -> str:
    folder.mkdir()
    rows = max(1, -(-table.num_rows // files))
    for index in range(files):
        pq.write_table(table.slice(index * rows, rows), folder / f"{index}.parquet", row_group_size=row_group_rows)
    return str(folder)


def in_order(table: pa.Table) -> pa.Table:
    """The rows sorted by all columns, with plain types."""
    plain = pa.table({name: _plain(table[name]) for name in table.schema.names})
    return plain.sort_by([(name, "ascending") for name in plain.schema.names]).combine_chunks()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
