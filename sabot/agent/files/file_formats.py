"""The formats besides Parquet, and what of their files may be read by itself: CSV, JSON lines and Arrow IPC.

Each gives a file's schema as pyarrow.dataset does, from its first block, and the rows of a part of it with those of the
wanted columns that it has. Files named .gz, .bz2, .zst or .lz4 are decompressed, but for IPC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa
from pyarrow import fs

from sabot.agent.files.csv_files import CsvFormat
from sabot.agent.files.ipc_files import IpcFormat
from sabot.agent.files.json_files import JsonFormat
from sabot.agent.files.line_ranges import Options
from sabot.dataflow.stage import FilePart


class FormatOfFiles(Protocol):
    """How the files of one format are read; all of it runs in the calling thread."""

    def schema(self, filesystem: fs.FileSystem, path: str, options: Options) -> pa.Schema:
        """The columns of a file."""
        ...

    def may_be_cut_at_lines(self, path: str, options: Options) -> bool:
        """Whether the lines of any range of the file's bytes are rows by themselves."""
        ...

    def read(self, opened: pa.NativeFile, part: FilePart, options: Options, wanted: pa.Schema) -> pa.Table:
        """The rows of the part, with at least the wanted columns that the file has; all where none is wanted."""
        ...


FORMATS: Mapping[str, FormatOfFiles] = {"csv": CsvFormat(), "json": JsonFormat(), "ipc": IpcFormat()}
