"""Formats whose files are read whole, in the calling thread: CSV, JSON lines and Arrow IPC (files and streams).

Each gives a file's schema as pyarrow.dataset does, from its first block, and a file's rows with those of the wanted
columns that it has. Files named .gz, .bz2, .zst or .lz4 are decompressed, but for IPC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pickle import dumps, loads
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.json
from pyarrow import fs

from sabot.errors import UsageError

Options = Mapping[str, Any]
_IPC_FILE_MAGIC = b"ARROW1"
_FEATHER_1_MAGIC = b"FEA1"


class WholeFile(Protocol):
    """How the files of one format are read."""

    def schema(self, filesystem: fs.FileSystem, path: str, options: Options) -> pa.Schema:
        """The columns of a file."""
        ...

    def read(self, filesystem: fs.FileSystem, path: str, options: Options, wanted: pa.Schema) -> pa.Table:
        """The rows, with at least the wanted columns that the file has; all columns where none is wanted."""
        ...


@dataclass(frozen=True, slots=True)
class CsvFile:
    def schema(self, filesystem: fs.FileSystem, path: str, options: Options) -> pa.Schema:
        import pyarrow.dataset as ds  # where it is used: an agent without such a source is spared it

        return ds.CsvFileFormat(**_given(options)).inspect(path, filesystem)

    def read(self, filesystem: fs.FileSystem, path: str, options: Options, wanted: pa.Schema) -> pa.Table:
        reading = _copy(options.get("read_options")) or pa.csv.ReadOptions()
        reading.use_threads = False
        converting = _copy(options.get("convert_options")) or pa.csv.ConvertOptions()
        # A type that the user names is read so, and then cast to the source's.
        converting.column_types = {field.name: field.type for field in wanted} | converting.column_types
        converting.include_columns = list(wanted.names)
        converting.include_missing_columns = True
        with filesystem.open_input_stream(path) as stream:
            return pa.csv.read_csv(
                stream, read_options=reading, parse_options=options.get("parse_options"), convert_options=converting
            )


@dataclass(frozen=True, slots=True)
class JsonFile:
    def schema(self, filesystem: fs.FileSystem, path: str, options: Options) -> pa.Schema:
        import pyarrow.dataset as ds

        found = ds.JsonFileFormat(**_given(options)).inspect(path, filesystem)
        parsing = options.get("parse_options")
        if parsing is None or parsing.explicit_schema is None:
            return found
        # pyarrow.dataset infers these columns, too; pyarrow.json gives them as they are asked for, before all others.
        asked = parsing.explicit_schema
        inferred = [] if parsing.unexpected_field_behavior == "ignore" else list(found)
        return pa.schema([*asked, *(field for field in inferred if field.name not in asked.names)])

    def read(self, filesystem: fs.FileSystem, path: str, options: Options, wanted: pa.Schema) -> pa.Table:
        reading = _copy(options.get("read_options")) or pa.json.ReadOptions()
        reading.use_threads = False
        parsing = _copy(options.get("parse_options")) or pa.json.ParseOptions()
        if len(wanted):
            parsing.explicit_schema = wanted
            parsing.unexpected_field_behavior = "ignore"
        with filesystem.open_input_stream(path) as stream:
            return pa.json.read_json(stream, read_options=reading, parse_options=parsing)


@dataclass(frozen=True, slots=True)
class IpcFile:
    def schema(self, filesystem: fs.FileSystem, path: str, options: Options) -> pa.Schema:
        with filesystem.open_input_file(path) as opened, _open_ipc(opened, path, None) as reader:
            return reader.schema.remove_metadata()

    def read(self, filesystem: fs.FileSystem, path: str, options: Options, wanted: pa.Schema) -> pa.Table:
        with filesystem.open_input_file(path) as opened, _open_ipc(opened, path, wanted.names) as reader:
            return reader.read_all()


def _open_ipc(opened: pa.NativeFile, path: str, columns: Sequence[str] | None) -> Any:
    """A reader of the file or stream, of these columns if it has them; no column named means all."""
    magic = opened.read(len(_IPC_FILE_MAGIC))
    opened.seek(0)
    if magic.startswith(_FEATHER_1_MAGIC):
        raise UsageError(f"{path} is a Feather file of version 1; write it anew with pyarrow.feather.write_feather")
    open_any = pa.ipc.open_file if magic == _IPC_FILE_MAGIC else pa.ipc.open_stream
    if columns:
        schema = open_any(opened).schema
        opened.seek(0)
        fields = [index for index, name in enumerate(schema.names) if name in set(columns)]
        return open_any(opened, options=pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False))
    return open_any(opened, options=pa.ipc.IpcReadOptions(use_threads=False))


def _given(options: Options) -> dict[str, Any]:
    return {name: option for name, option in options.items() if option is not None}


def _copy(option: Any) -> Any:
    """Options are the plan's, and are changed for a file: pyarrow has no other way to copy them."""
    return None if option is None else loads(dumps(option))


WHOLE_FILES: Mapping[str, WholeFile] = {"csv": CsvFile(), "json": JsonFile(), "ipc": IpcFile()}
