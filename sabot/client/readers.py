"""The part of a session that makes datasets: of files that agents read, and of this process's own tables.

What is asked of the session's agent is which files there are; rows are read when a job runs. File systems,
partitionings and options are pyarrow's own objects, which travel to the agents.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import pyarrow as pa
import pyarrow.compute as pc

from sabot.client.coordinators import Coordinators
from sabot.client.file_source import FilesLeft, absolute_paths, files_of, is_local
from sabot.dataflow.columns import check_columns
from sabot.dataflow.dataset import Dataset
from sabot.dataflow.plan import ScanNode, TableNode
from sabot.dataflow.scan import SourceRequest
from sabot.dataflow.session_protocol import SessionProtocol
from sabot.dataflow.stage import FileFormat
from sabot.errors import UsageError

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Readers(SessionProtocol):
    """Paths are files, folders, globs or URIs, or a list of them; relative ones are taken from this directory.

    Every agent must find them under the same path. `filesystem` is a pyarrow.fs.FileSystem. Folders named `key=value`
    become columns, unless `partitioning` is None; it may also be what pyarrow.dataset.partitioning gives. The columns
    are those of the first file unless `schema` says them: what a file lacks is null in its rows.
    """

    _coordinators: Coordinators

    def read_parquet(
        self,
        paths: Paths,
        columns: Sequence[str] | None = None,
        *,
        filters: pc.Expression | Sequence[Any] | None = None,
        schema: pa.Schema | None = None,
        partitioning: Any = "hive",
        filesystem: Any = None,
    ) -> Dataset:
        """Parquet files. `filters` as in pyarrow.parquet.read_table: an expression, or lists of (column, op, value)."""
        if filters is None:
            return self._scan("parquet", paths, columns, schema, partitioning, filesystem, {})
        found = self._scan("parquet", paths, None, schema, partitioning, filesystem, {}).filter(_expression(filters))
        return found if columns is None else found.select(columns)

    def read_csv(
        self,
        paths: Paths,
        columns: Sequence[str] | None = None,
        *,
        schema: pa.Schema | None = None,
        partitioning: Any = "hive",
        filesystem: Any = None,
        read_options: Any = None,
        parse_options: Any = None,
        convert_options: Any = None,
    ) -> Dataset:
        """CSV files, plain or compressed (.gz, .bz2, .zst, .lz4); options are those of pyarrow.csv."""
        options = {"read_options": read_options, "parse_options": parse_options, "convert_options": convert_options}
        if convert_options is not None and convert_options.include_columns:
            raise UsageError("read_csv: pass columns= in place of convert_options.include_columns")
        return self._scan("csv", paths, columns, schema, partitioning, filesystem, options)

    def read_json(
        self,
        paths: Paths,
        columns: Sequence[str] | None = None,
        *,
        schema: pa.Schema | None = None,
        partitioning: Any = "hive",
        filesystem: Any = None,
        read_options: Any = None,
        parse_options: Any = None,
    ) -> Dataset:
        """Files of one JSON object a line, plain or compressed; options are those of pyarrow.json."""
        options = {"read_options": read_options, "parse_options": parse_options}
        return self._scan("json", paths, columns, schema, partitioning, filesystem, options)

    def read_ipc(
        self,
        paths: Paths,
        columns: Sequence[str] | None = None,
        *,
        schema: pa.Schema | None = None,
        partitioning: Any = "hive",
        filesystem: Any = None,
    ) -> Dataset:
        """Arrow IPC files (Feather, too) and streams."""
        return self._scan("ipc", paths, columns, schema, partitioning, filesystem, {})

    def from_table(self, table: pa.Table | pa.RecordBatch | Any) -> Dataset:
        """A table of this process, or anything with `__arrow_c_stream__`; each job that uses it uploads it."""
        self._check_open()
        if not isinstance(table, pa.Table):
            if not hasattr(table, "__arrow_c_stream__") and not hasattr(table, "__arrow_c_array__"):
                raise UsageError(
                    f"from_table takes a pyarrow.Table or what has __arrow_c_stream__, not {type(table).__name__}"
                )
            table = pa.table(table)
        return Dataset(self, TableNode(table_id=uuid.uuid4().hex, table=table))

    def from_batches(
        self, batches: Iterable[pa.RecordBatch] | pa.RecordBatchReader, schema: pa.Schema | None = None
    ) -> Dataset:
        """The rows of the batches, which are read now and kept in this process; as pyarrow.Table.from_batches."""
        self._check_open()
        if isinstance(batches, pa.RecordBatchReader):
            if schema is not None and not batches.schema.equals(schema):
                raise UsageError(f"from_batches: the reader has the schema {batches.schema}, not {schema}")
            return self.from_table(batches.read_all())
        try:
            table = pa.Table.from_batches(list(batches), schema=schema)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise UsageError(f"from_batches: {error}; give RecordBatches of one schema, or schema= for none") from error
        return self.from_table(table)

    def _check_open(self) -> None:
        raise NotImplementedError

    def _scan(  # noqa: PLR0917 - what every reader takes
        self,
        file_format: FileFormat,
        paths: Paths,
        columns: Sequence[str] | None,
        schema: pa.Schema | None,
        partitioning: Any,
        filesystem: Any,
        options: dict[str, Any],
    ) -> Dataset:
        self._check_open()
        what = f"read_{file_format}"
        request = SourceRequest(
            format=file_format,
            paths=tuple(absolute_paths(paths, Path.cwd() if is_local(filesystem) else None)),
            filesystem=filesystem,
            partitioning=partitioning,
            schema=schema,
            options={name: option for name, option in options.items() if option is not None},
        )
        packed = _packed(request, what)
        reply = self._coordinators.ask(lambda control: control.describe_source(packed))
        files, found = files_of(reply), pa.ipc.read_schema(pa.py_buffer(reply.schema))
        if columns is not None:
            check_columns(columns, found, what)
        node = ScanNode(
            format=file_format,
            files=files,
            columns=None if columns is None else tuple(columns),
            file_schema=found if columns is None else pa.schema([found.field(name) for name in columns]),
            filesystem=reply.filesystem,
            options=request.options,
            column_widths=dict(zip(found.names, reply.column_widths, strict=False)),
            left=FilesLeft(self._coordinators, file_format, files, reply.filesystem, found),
        )
        return Dataset(self, node)


def _packed(request: SourceRequest, what: str) -> bytes:
    try:
        packed: bytes = cloudpickle.dumps(request)
    except Exception as error:
        raise UsageError(
            f"{what}: filesystem=, partitioning= or an option cannot be sent to the agents: {error}; give one that "
            "can be pickled, or a URI"
        ) from error
    return packed


def _expression(filters: pc.Expression | Sequence[Any]) -> pc.Expression:
    if isinstance(filters, pc.Expression):
        return filters
    import pyarrow.parquet as pq  # a tenth of a second to import, for this alone

    try:
        return pq.filters_to_expression(filters)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise UsageError(
            f"read_parquet: filters= takes an expression or lists of (column, operator, value): {error}"
        ) from error
