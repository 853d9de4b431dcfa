"""A task's rows as files of a dataset: one after the other, or one in each folder that the values of columns give.

Files lie in the job's hidden folder, which the coordinator's agent has made, until the job has succeeded.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from sabot.agent.files.publish import hidden_folder
from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.agent.tasks.task_output import Gather, WireForm, conform
from sabot.dataflow.columns import plain_schema
from sabot.dataflow.execution import wire_schema
from sabot.dataflow.joining import taken
from sabot.dataflow.stage import WriteOutput
from sabot.errors import LimitReached, SabotError, UsageError
from sabot.wire.agent_pb2 import RunTaskReply, WrittenFile

_GATHERED_BYTES = 64 << 20  # what is gathered for one row group of a file


class FileWriter:
    """Writes the rows of one attempt. A file is begun with its first rows; of a task 0 without rows there is one, so
    that a dataset without rows has columns.
    """

    def __init__(
        self,
        output: WriteOutput,
        calls: SlotCalls,
        schema: pa.Schema,
        *,
        job_id: str,
        task: int,
        attempt: int,
        epoch: int = 0,
    ) -> None:
        self._output = output
        self._calls = calls
        self._task = task
        self._schema = file_schema(output, schema)
        self._form = WireForm(calls, schema) if output.format != "parquet" else None
        self._gather = Gather(_GATHERED_BYTES)
        self._hidden = hidden_folder(output.folder, job_id, epoch)
        # A folder for each attempt: one that was given up may write on, and must not write into another's file.
        self._attempt = f"attempt-{attempt}"
        self._open: dict[str, _OpenFile] = {}  # by folder, the one written to last at the end
        self._begun: dict[str, int] = {}
        self._written: list[WrittenFile] = []
        self._paths: list[Path] = []
        self._partitions = _Partitions(output, schema) if output.partitioning else None
        if not self._hidden.is_dir():
            raise UsageError(
                f"this agent does not see {self._hidden}, which the coordinator's agent has made; "
                "write to a folder that every agent finds under the same path",
                path=output.folder,
                unseen=str(self._hidden),
                unseen_filesystem=b"",
            )

    def write(self, batches: Sequence[pa.RecordBatch]) -> None:
        for piece in self._gather.add(self._form.convert(batches) if self._form else batches):
            self._write(piece)

    def finish(self, reply: RunTaskReply) -> None:
        self._write(self._gather.rest())
        try:
            if self._task == 0 and not self._begun and self._partitions is None:
                self._calls.call_to_end(lambda: self._file_in(""))
            while self._open:
                self._calls.call_to_end(lambda: self._close(next(iter(self._open))))
        except OSError as error:
            raise self._failed(error) from error
        reply.written.extend(self._written)

    def abort(self) -> None:
        for file in self._open.values():
            with suppress(Exception):  # what it would write is thrown away
                file.close()
        self._open = {}
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _write(self, batches: Sequence[pa.RecordBatch]) -> None:
        if not batches:
            return
        try:
            self._calls.call_to_end(lambda: self._write_pieces(batches))
        except pa.ArrowMemoryError:  # no fault of the rows
            raise
        except OSError as error:
            raise self._failed(error) from error
        except (pa.ArrowException, NotImplementedError) as error:
            raise UsageError(
                f"rows cannot be written as {self._output.format}: {error}; cast or drop that column"
            ) from error

    def _failed(self, error: OSError) -> SabotError:
        folder = self._output.folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return LimitReached(
                f"the disk of {folder} is full: {error}; make room there, or write to another one", path=folder
            )
        return UsageError(f"a file cannot be written below {folder}: {error}", path=folder)

    def _write_pieces(self, batches: Sequence[pa.RecordBatch]) -> None:
        if self._partitions is None:
            self._write_table("", pa.Table.from_batches([conform(batch, self._schema) for batch in batches]))
            return
        schema = batches[0].schema
        table = pa.Table.from_batches([conform(batch, schema) for batch in batches])
        for folder, rows in self._partitions.split(table):
            columns = rows.select(self._schema.names).columns
            self._write_table(folder, pa.Table.from_arrays(columns, schema=self._schema))

    def _write_table(self, folder: str, table: pa.Table) -> None:
        most = self._output.max_rows_per_file
        while table.num_rows:
            file = self._file_in(folder)
            part = table.slice(0, most - file.rows) if most else table
            file.write(part)
            table = table.slice(part.num_rows)
            if most and file.rows >= most:
                self._close(folder)

    def _file_in(self, folder: str) -> _OpenFile:
        """The open file of the folder, if need be a new one; the one longest unused is closed for it."""
        file = self._open.pop(folder, None)
        if file is None:
            if len(self._open) >= self._output.max_open_files:
                self._close(next(iter(self._open)))
            path = f"{self._attempt}/{folder}/{self._next_name(folder)}" if folder else self._unfoldered()
            whole = self._hidden / path
            self._make(whole.parent)
            self._paths.append(whole)
            file = _OpenFile(self._output, path, whole, self._schema)
        self._open[folder] = file
        return file

    def _make(self, folder: Path) -> None:
        """Below the hidden folder. Where that is gone the job has ended or is another coordinator's, and nobody would
        remove what is made anew.
        """
        if folder != self._hidden:
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)

    def _unfoldered(self) -> str:
        return f"{self._attempt}/{self._next_name('')}"

    def _next_name(self, folder: str) -> str:
        """Names are a task's own, so that no two tasks write one file."""
        count = self._begun.get(folder, 0)
        self._begun[folder] = count + 1
        number = f"{self._task:05}" + (f"-{count}" if count else "")
        return self._output.basename_template.replace("{i}", number)

    def _close(self, folder: str) -> None:
        file = self._open.pop(folder)
        file.close()
        self._written.append(WrittenFile(path=file.path, rows=file.rows))


class _OpenFile:
    def __init__(self, output: WriteOutput, path: str, whole: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self._sink = pa.OSFile(str(whole), "wb")
        self._groups = {"row_group_size": output.max_rows_per_group} if output.format == "parquet" else {}
        try:
            self._writer = open_writer(output, self._sink, schema)
        except BaseException:
            self._sink.close()
            raise

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, **self._groups)
        self.rows += table.num_rows

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._sink.close()


class _Partitions:
    """Parts rows by the values of columns, and names the folder of each part as pyarrow.dataset does."""

    def __init__(self, output: WriteOutput, schema: pa.Schema) -> None:
        import pyarrow.dataset as ds  # where it is used: tasks that write no such dataset are spared it

        self._names = list(output.partitioning)
        fields = [pa.field(name, _value_type(schema.field(name).type)) for name in self._names]
        self._schema = pa.schema(fields)
        self._partitioning = ds.partitioning(self._schema, flavor=output.partitioning_flavor)

    def split(self, table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        keys = pa.table(
            [table.column(field.name).cast(field.type) for field in self._schema], schema=self._schema
        ).rename_columns([f"key {index}" for index in range(len(self._names))])
        numbered = keys.append_column("row", pa.array(range(table.num_rows), pa.int64()))
        groups = numbered.group_by(keys.schema.names, use_threads=False).aggregate([("row", "list")])
        for index in range(groups.num_rows):
            values = [groups.column(f"key {position}")[index] for position in range(len(self._names))]
            rows = groups.column("row_list")[index].values
            columns = [taken(column, rows) for column in table.columns]
            yield self._folder(values), pa.Table.from_arrays(columns, schema=table.schema)

    def _folder(self, values: Sequence[pa.Scalar]) -> str:
        fields = [pc.field(name) for name in self._names]
        pairs = zip(fields, values, strict=True)
        common = [field == value if value.is_valid else field.is_null() for field, value in pairs]
        folder, _ = self._partitioning.format(reduce(and_, common))
        return str(folder).strip("/")


def file_schema(output: WriteOutput, schema: pa.Schema) -> pa.Schema:
    """The columns in the files: not those that the folders' names give."""
    kept = pa.schema([field for field in schema if field.name not in output.partitioning])
    return plain_schema(kept) if output.format == "parquet" else wire_schema(kept)


def check_writes(output: WriteOutput, schema: pa.Schema) -> None:
    """UsageError where no file can be written so: found out by opening one in memory."""
    try:
        open_writer(output, pa.BufferOutputStream(), file_schema(output, schema)).close()
    except pa.ArrowException as error:
        raise UsageError(f"rows cannot be written as {output.format}: {error}; cast or drop that column") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"write_dataset: file_options {dict(output.file_options)!r} do not suit {output.format}: {error}"
        ) from error


def open_writer(output: WriteOutput, sink: Any, schema: pa.Schema) -> Any:
    """A writer of the format with the file options: those of pyarrow's writer of it, by name."""
    options = dict(output.file_options)
    if output.format == "parquet":
        return pq.ParquetWriter(sink, schema, **options)
    if output.format == "csv":
        return pa.csv.CSVWriter(sink, schema, write_options=pa.csv.WriteOptions(**options))
    return pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(**options))


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
