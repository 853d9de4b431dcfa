"""Reads the files of a split, piece by piece, each in one slot call: row groups, lines, or a whole file.

A file is refused where it is no longer the one that was listed; rows are held against the row groups' counts. The rows
have the planned schema in its plain form: columns that a file lacks are null, others are cast where that loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pyarrow as pa
from pyarrow import fs

from sabot.agent.files.file_formats import FORMATS
from sabot.agent.files.file_listing import nearest_existing, unpack_filesystem
from sabot.agent.files.footers import Footers
from sabot.agent.files.path_columns import constant_column
from sabot.agent.files.sources import pinned_faults
from sabot.dataflow.columns import plain_schema
from sabot.dataflow.splits import PIECE_BYTES, pieces_of
from sabot.dataflow.stage import FilePart, FilesSplit, ScanInput, SourceFile
from sabot.errors import UsageError


def file_pieces(
    split: FilesSplit, scan: ScanInput, *, agent_id: str, footers: Footers
) -> Iterator[Callable[[], pa.Table]]:
    """One function for each piece of the split, in order; each reads its piece and may run in any thread."""
    filesystem = unpack_filesystem(scan.filesystem)
    for part in split.parts:
        for piece in pieces_of(part, PIECE_BYTES):
            yield partial(_read, filesystem, piece, scan, agent_id, footers)


def _read(filesystem: fs.FileSystem, piece: FilePart, scan: ScanInput, agent_id: str, footers: Footers) -> pa.Table:
    file = piece.file
    given = {name for name, _ in file.partition}
    wanted = pa.schema([field for field in plain_schema(scan.schema) if field.name not in given])
    try:
        with filesystem.open_input_file(file.path) as opened:
            for fault in pinned_faults(file, filesystem, opened):
                raise UsageError(
                    f"{file.path} has changed since the job was planned: {fault}, seen by agent {agent_id}; "
                    "make the dataset anew and run it again",
                    path=file.path,
                    agent=agent_id,
                )
            return _conform(_read_piece(opened, piece, scan, wanted, footers), file, scan)
    except pa.ArrowMemoryError:  # no fault of the file
        raise
    except FileNotFoundError as error:
        raise UsageError(
            f"agent {agent_id} does not see {file.path}, which another agent listed "
            f"({nearest_existing(file.path, filesystem)}); "
            "put the files where every agent finds them under the same path",
            path=file.path,
            agent=agent_id,
            unseen=file.path,
            unseen_filesystem=scan.filesystem,
        ) from error
    except PermissionError as error:
        raise UsageError(
            f"agent {agent_id} may not read {file.path}: {error}", path=file.path, agent=agent_id
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"agent {agent_id} cannot read {file.path} as {scan.format}: {error}", path=file.path, agent=agent_id
        ) from error


def _read_piece(
    opened: pa.NativeFile, piece: FilePart, scan: ScanInput, wanted: pa.Schema, footers: Footers
) -> pa.Table:
    if scan.format != "parquet":
        return FORMATS[scan.format].read(opened, piece, scan.options, wanted)
    with footers.open(opened, piece.file, scan.filesystem) as parquet:
        names = set(wanted.names)
        found = parquet.schema_arrow.names
        columns = None if names.issuperset(found) else [name for name in found if name in names]
        groups = list(piece.row_groups or ())
        # Dictionaries within lists and structs of several row groups are beyond pyarrow's reader.
        if len(groups) > 1 and any(_is_nested_dictionary(field.type) for field in wanted if field.name in found):
            table = pa.concat_tables(
                parquet.read_row_groups([group], columns=columns, use_threads=False) for group in groups
            )
        else:  # a table without columns has its rows, which put together with others it would not have
            table = parquet.read_row_groups(groups, columns=columns, use_threads=False)
    if table.num_rows != piece.rows:
        raise OSError(f"row groups {piece.row_groups} gave {table.num_rows:,} rows and have {piece.rows:,}")
    return table


def _is_nested_dictionary(kind: pa.DataType) -> bool:
    fields = [kind.field(index) for index in range(kind.num_fields)]
    return any(pa.types.is_dictionary(field.type) or _is_nested_dictionary(field.type) for field in fields)


def _conform(table: pa.Table, file: SourceFile, scan: ScanInput) -> pa.Table:
    """The planned columns in the planned order, plain."""
    schema = plain_schema(scan.schema)
    given = dict(file.partition)
    if not given and table.schema.names == schema.names and table.schema.types == schema.types:  # also repeated names
        return pa.Table.from_arrays(table.columns, schema=schema) if table.num_columns else table
    columns = [
        constant_column(given[field.name], field.type, table.num_rows)
        if field.name in given
        else _column(table, field, file)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema) if columns else table.select([])


def _column(table: pa.Table, field: pa.Field, file: SourceFile) -> pa.ChunkedArray:
    if field.name not in table.schema.names:
        return constant_column(None, field.type, table.num_rows)
    column = table.column(field.name)
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(
            f"column {field.name!r} of {file.path} is {column.type} and cannot be read as {field.type}, its type in "
            f"this source: {error}; pass schema= with a type that fits all files",
            path=file.path,
            column=field.name,
        ) from error
