"""Reads the files of a split, piece by piece: row groups, lines, or a whole file; each call of a slot reads one, or of
row groups that are large in memory some of their rows.

A file is refused where it is no longer the one that was listed; rows are held against the row groups' counts. The rows
have the planned schema in its plain form: columns that a file lacks are null, others are cast where that loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyarrow import fs

from sabot.agent.files.file_formats import FORMATS
from sabot.agent.files.file_listing import nearest_existing, unpack_filesystem
from sabot.agent.files.footers import Footers
from sabot.agent.files.parquet_rows import ParquetRows
from sabot.agent.files.path_columns import constant_column
from sabot.agent.files.sources import pinned_faults
from sabot.dataflow.columns import plain_schema
from sabot.dataflow.splits import piece_bytes, pieces_of
from sabot.dataflow.stage import FilePart, FilesSplit, ScanInput, SourceFile
from sabot.errors import UsageError


def file_pieces(
    split: FilesSplit, scan: ScanInput, *, agent_id: str, footers: Footers, bytes_max: int
) -> Iterator[FilePiece]:
    """The pieces of the split, in order; of a large one about `bytes_max` are read at a time."""
    filesystem = unpack_filesystem(scan.filesystem)
    for part in split.parts:
        for piece in pieces_of(part, piece_bytes(bytes_max)):
            yield FilePiece(filesystem, piece, scan, agent_id=agent_id, footers=footers, bytes_max=bytes_max)


class FilePiece:
    """Rows of one file. `read` may run in any thread, in one at a time; the file is open from the first call to the
    last, or until `close`."""

    def __init__(
        self,
        filesystem: fs.FileSystem,
        part: FilePart,
        scan: ScanInput,
        *,
        agent_id: str,
        footers: Footers,
        bytes_max: int,
    ) -> None:
        self.part = part
        self.ended = False
        self._filesystem = filesystem
        self._scan = scan
        self._agent_id = agent_id
        self._footers = footers
        self._bytes_max = bytes_max
        self._opened: pa.NativeFile | None = None
        self._parquet: ParquetRows | None = None
        self._table: pa.Table | None = None

    def read(self) -> FilePiece:
        """Reads on: `take` gives the rows, and `ended` tells whether they are the last."""
        try:
            with _naming_faults(self.part.file, self._filesystem, self._scan, self._agent_id):
                self._table = _conform(self._read(), self.part.file, self._scan)
        except BaseException:
            self.close()
            raise
        if self.ended:
            self.close()
        return self

    @property
    def num_rows(self) -> int:
        """Of what `take` will give."""
        return 0 if self._table is None else self._table.num_rows

    def take(self) -> pa.Table:
        """The rows that were read, which nothing here holds any more."""
        table, self._table = self._table, None
        assert table is not None
        return table

    def close(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
        if self._opened is not None:
            self._opened.close()

    def _read(self) -> pa.Table:
        part, scan = self.part, self._scan
        if self._opened is None:
            self._opened = self._open()
        if scan.format != "parquet":
            self.ended = True
            return FORMATS[scan.format].read(self._opened, part, scan.options, self._wanted())
        if self._parquet is None:
            self._parquet = ParquetRows(
                self._opened, part, self._wanted(), self._footers, filesystem=scan.filesystem, bytes_max=self._bytes_max
            )
        table = self._parquet.read()
        self.ended = self._parquet.ended
        return table

    def _open(self) -> pa.NativeFile:
        file = self.part.file
        opened = self._filesystem.open_input_file(file.path)
        for fault in pinned_faults(file, self._filesystem, opened):
            opened.close()
            raise UsageError(
                f"{file.path} has changed since the job was planned: {fault}, seen by agent {self._agent_id}; "
                "make the dataset anew and run it again",
                path=file.path,
                agent=self._agent_id,
            )
        return opened

    def _wanted(self) -> pa.Schema:
        given = {name for name, _ in self.part.file.partition}
        return pa.schema([field for field in plain_schema(self._scan.schema) if field.name not in given])


@contextmanager
def _naming_faults(file: SourceFile, filesystem: fs.FileSystem, scan: ScanInput, agent_id: str) -> Iterator[None]:
    try:
        yield
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
