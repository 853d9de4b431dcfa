"""Reads the files of a split, piece by piece: a row group of Parquet or a whole CSV file, each in one slot call.

A file is refused where it is no longer the one that was listed; rows are held against the row groups' counts. The rows
have the planned schema in its plain form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from sabot.agent.sources import nearest_existing, pinned_faults
from sabot.dataflow.columns import plain_schema
from sabot.dataflow.stage import FilePart, FilesSplit, ScanInput, SourceFile
from sabot.errors import UsageError


def file_pieces(split: FilesSplit, scan: ScanInput, *, agent_id: str) -> Iterator[Callable[[], pa.Table]]:
    """One function for each piece of the split, in order; each reads its piece and may run in any thread."""
    for part in split.parts:
        if scan.format == "parquet":
            groups = range(len(part.file.row_group_rows)) if part.row_groups is None else part.row_groups
            for group in groups:
                yield partial(_read, partial(_read_row_group, group=group), part, scan, agent_id)
        else:
            yield partial(_read, _read_csv, part, scan, agent_id)


def _read(
    read: Callable[[SourceFile, ScanInput], pa.Table], part: FilePart, scan: ScanInput, agent_id: str
) -> pa.Table:
    file = part.file
    try:
        for fault in pinned_faults(file):
            raise UsageError(
                f"{file.path} has changed since the job was planned: {fault}, seen by agent {agent_id}; "
                "make the dataset anew and run it again",
                path=file.path,
                agent=agent_id,
            )
        table = read(file, scan)
    except pa.ArrowMemoryError:  # no fault of the file
        raise
    except FileNotFoundError as error:
        raise UsageError(
            f"agent {agent_id} does not see {file.path}, which another agent listed "
            f"({nearest_existing(Path(file.path))}); "
            "put the files where every agent finds them under the same path",
            path=file.path,
            agent=agent_id,
        ) from error
    except PermissionError as error:
        raise UsageError(
            f"agent {agent_id} may not read {file.path}: {error}", path=file.path, agent=agent_id
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"agent {agent_id} cannot read {file.path} as {scan.format}: {error}", path=file.path, agent=agent_id
        ) from error
    return _conform(table, scan)


def _read_row_group(file: SourceFile, scan: ScanInput, *, group: int) -> pa.Table:
    with pq.ParquetFile(file.path, pre_buffer=False) as parquet:
        names = None if scan.columns is None else list(scan.columns)
        table = parquet.read_row_group(group, columns=names, use_threads=False)
    if table.num_rows != file.row_group_rows[group]:
        raise OSError(f"row group {group} gave {table.num_rows:,} rows and has {file.row_group_rows[group]:,}")
    return table


def _read_csv(file: SourceFile, scan: ScanInput) -> pa.Table:
    # No columns named means all of them to pyarrow, whose rows then are what is wanted.
    options = pa.csv.ConvertOptions(column_types=scan.schema, include_columns=list(scan.columns or ()))
    return pa.csv.read_csv(file.path, read_options=pa.csv.ReadOptions(use_threads=False), convert_options=options)


def _conform(table: pa.Table, scan: ScanInput) -> pa.Table:
    """The planned columns in the planned order, plain; their types are the file's own, known to be the same."""
    if scan.columns is not None:
        table = table.select(list(scan.columns))  # keeps the number of rows, also where no column is left
    return pa.Table.from_arrays(table.columns, schema=plain_schema(scan.schema)) if table.num_columns else table
