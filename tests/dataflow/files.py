"""Datasets over real files, described as an agent would describe them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from sabot.dataflow.dataset import Dataset
from sabot.dataflow.plan import ScanNode
from sabot.dataflow.session_protocol import SessionProtocol
from sabot.dataflow.stage import SourceFile


def parquet_dataset(session: SessionProtocol, folder: Path, table: pa.Table, *, files: int, group_rows: int) -> Dataset:
    """The table as Parquet files of several row groups each."""
    sources = []
    rows = -(-table.num_rows // files)
    for index in range(files):
        path = folder / f"{index}.parquet"
        pq.write_table(table.slice(index * rows, rows), path, row_group_size=group_rows)
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        sources.append(
            source_file(
                str(path),
                rows=tuple(group.num_rows for group in groups),
                sizes=tuple(group.total_byte_size for group in groups),
            )
        )
    return _dataset(session, "parquet", tuple(sources), pq.read_schema(folder / "0.parquet"))


def csv_dataset(session: SessionProtocol, folder: Path, table: pa.Table, *, files: int) -> Dataset:
    """The table as CSV files."""
    rows = -(-table.num_rows // files)
    sources = []
    for index in range(files):
        path = folder / f"{index}.csv"
        pyarrow.csv.write_csv(table.slice(index * rows, rows), path)
        sources.append(source_file(str(path)))
    return _dataset(session, "csv", tuple(sources), table.schema)


def source_file(path: str, *, rows: tuple[int, ...] = (), sizes: tuple[int, ...] = ()) -> SourceFile:
    """A file as described; it need not exist."""
    return SourceFile(path=path, size_bytes=sum(sizes), modified_ns=1, row_group_rows=rows, row_group_bytes=sizes)


def _dataset(
    session: SessionProtocol, kind: Literal["parquet", "csv"], files: tuple[SourceFile, ...], schema: pa.Schema
) -> Dataset:
    return Dataset(session, ScanNode(format=kind, files=files, file_schema=schema))
