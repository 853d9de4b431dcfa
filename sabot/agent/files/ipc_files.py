"""Arrow IPC: files, whose footer lists their record batches, and streams, which are read whole."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.ipc
from pyarrow import fs

from sabot.agent.files.line_ranges import Options
from sabot.dataflow.stage import FilePart
from sabot.errors import UsageError

_FILE_MAGIC = b"ARROW1"
_FEATHER_1_MAGIC = b"FEA1"
_BLOCK_BYTES = 24  # struct Block of the format's File.fbs: offset, length of the metadata, length of the body
_BATCHES_FIELD = 3  # of table Footer: version, schema, dictionaries, recordBatches


@dataclass(frozen=True, slots=True)
class IpcFormat:
    def schema(self, filesystem: fs.FileSystem, path: str, options: Options) -> pa.Schema:
        with filesystem.open_input_file(path) as opened, _open_ipc(opened, path, None) as reader:
            return reader.schema.remove_metadata()

    def may_be_cut_at_lines(self, path: str, options: Options) -> bool:
        return False

    def read(self, opened: pa.NativeFile, part: FilePart, options: Options, wanted: pa.Schema) -> pa.Table:
        with _open_ipc(opened, part.file.path, wanted.names) as reader:
            if part.row_groups is None:
                return reader.read_all()
            return pa.Table.from_batches([reader.get_batch(index) for index in part.row_groups], reader.schema)


def batch_bytes(opened: pa.NativeFile) -> tuple[int, ...]:
    """The bytes of each record batch that an open file lists; none where it is a stream."""
    size = opened.size()
    opened.seek(0)
    if size < 2 * len(_FILE_MAGIC) or opened.read(len(_FILE_MAGIC)) != _FILE_MAGIC:
        return ()
    opened.seek(size - len(_FILE_MAGIC) - 4)
    (length,) = struct.unpack("<i", opened.read(4))
    if not 0 < length <= size - len(_FILE_MAGIC) - 4:
        raise pa.ArrowInvalid(f"its footer says that it has {length:,} bytes")
    opened.seek(size - len(_FILE_MAGIC) - 4 - length)
    try:
        return _batch_bytes(opened.read(length))
    except (struct.error, ValueError) as error:
        raise pa.ArrowInvalid(f"its footer is damaged: {error}") from error


def _batch_bytes(footer: bytes) -> tuple[int, ...]:
    """The bytes of each record batch, read out of the flatbuffer that pyarrow does not show."""
    (table,) = struct.unpack_from("<I", footer, 0)
    (to_fields,) = struct.unpack_from("<i", footer, table)
    fields = table - to_fields
    (fields_bytes,) = struct.unpack_from("<H", footer, fields)
    place = 4 + 2 * _BATCHES_FIELD
    if place >= fields_bytes:
        return ()
    (offset,) = struct.unpack_from("<H", footer, fields + place)
    if not offset:
        return ()
    (to_blocks,) = struct.unpack_from("<I", footer, table + offset)
    blocks = table + offset + to_blocks
    (count,) = struct.unpack_from("<I", footer, blocks)
    if blocks + 4 + count * _BLOCK_BYTES > len(footer):
        raise ValueError(f"it lists {count:,} record batches and ends before")
    found = struct.iter_unpack("<qi4xq", footer[blocks + 4 : blocks + 4 + count * _BLOCK_BYTES])
    return tuple(metadata + body for _, metadata, body in found)


def _open_ipc(opened: pa.NativeFile, path: str, columns: Sequence[str] | None) -> Any:
    """A reader of the file or stream, of these columns if it has them; no column named means all."""
    magic = opened.read(len(_FILE_MAGIC))
    opened.seek(0)
    if magic.startswith(_FEATHER_1_MAGIC):
        raise UsageError(f"{path} is a Feather file of version 1; write it anew with pyarrow.feather.write_feather")
    open_any = pa.ipc.open_file if magic == _FILE_MAGIC else pa.ipc.open_stream
    if columns:
        schema = open_any(opened).schema
        opened.seek(0)
        fields = [index for index, name in enumerate(schema.names) if name in set(columns)]
        return open_any(opened, options=pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False))
    return open_any(opened, options=pa.ipc.IpcReadOptions(use_threads=False))
