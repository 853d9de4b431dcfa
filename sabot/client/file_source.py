"""Files as a client knows them: the paths that it asks for, what an agent has found, what a filter leaves of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import pyarrow as pa
import pyarrow.compute as pc

from sabot.client.coordinators import Coordinators
from sabot.dataflow.scan import PruneRequest
from sabot.dataflow.stage import FileFormat, SourceFile
from sabot.errors import UsageError
from sabot.wire import agent_pb2

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


class FilesLeft:
    """Asks the session's agent which row groups may have rows that pass a filter; remembers the answers."""

    def __init__(
        self,
        coordinators: Coordinators,
        file_format: FileFormat,
        files: tuple[SourceFile, ...],
        filesystem: bytes,
        schema: pa.Schema,
    ) -> None:
        self._coordinators = coordinators
        self._request = (file_format, files, filesystem, schema)
        self._path_columns = {name for file in files for name, _ in file.partition}
        self._known: dict[bytes, list[Sequence[int] | None]] = {}

    def __call__(self, expression: pc.Expression) -> list[Sequence[int] | None]:
        file_format, files, filesystem, schema = self._request
        if file_format != "parquet" and not self._path_columns:
            return [None] * len(files)
        packed = cloudpickle.dumps(
            PruneRequest(format=file_format, files=files, filesystem=filesystem, schema=schema, filter=expression)
        )
        if packed not in self._known:
            reply = self._coordinators.ask(lambda control: control.prune_source(packed))
            self._known[packed] = [None if left.whole else tuple(left.row_groups) for left in reply.files]
        return self._known[packed]


def files_of(reply: agent_pb2.DescribeSourceReply) -> tuple[SourceFile, ...]:
    """The files that an agent has listed."""
    rows: list[dict[str, Any]] = [{} for _ in reply.files]
    if reply.partitions:
        rows = pa.ipc.open_stream(reply.partitions).read_all().to_pylist()
    return tuple(
        SourceFile(
            path=file.path,
            size_bytes=file.size_bytes,
            modified_ns=file.modified_ns,
            row_group_rows=tuple(file.row_group_rows),
            row_group_bytes=tuple(file.row_group_bytes),
            etag=file.etag,
            cut_at_lines=file.cut_at_lines,
            partition=tuple(row.items()),
        )
        for file, row in zip(reply.files, rows, strict=True)
    )


def is_local(filesystem: Any) -> bool:
    """Whether paths of it are those of this machine."""
    return filesystem is None or getattr(filesystem, "type_name", "") == "local"


def absolute_paths(paths: Any, directory: Path | None) -> list[str]:
    """Paths, globs and URIs as the agents take them: relative paths below `directory`, where there is one."""
    single = isinstance(paths, str | os.PathLike) or not isinstance(paths, Iterable)
    listed: list[Any] = [paths] if single else list(paths)
    if not listed:
        raise UsageError("no path was given; give a file, a folder, a glob, or a list of them")
    for path in listed:
        if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str) or not os.fspath(path):
            raise UsageError(f"{path!r} is no path; give str or os.PathLike")
    # Not resolved: links are the agents' to follow.
    return [
        os.fspath(path) if directory is None or _SCHEME.match(os.fspath(path)) else str(directory / path)
        for path in listed
    ]


def local_path(path: str, directory: Path, filesystem: Any = None) -> str:
    """A path to write to, on the agents' own file systems. UsageError for others, which do not rename atomically."""
    from pyarrow import fs

    scheme = _SCHEME.match(path)
    other = scheme[1] if scheme is not None and scheme[1].lower() != "file" else None
    if filesystem is not None and scheme is not None:
        raise UsageError(f"{path} names its file system; pass no filesystem=, or a path of that", path=path)
    if isinstance(filesystem, fs.SubTreeFileSystem):
        return local_path(filesystem.base_path.rstrip("/") + "/" + path, directory, filesystem.base_fs)
    if filesystem is not None and not isinstance(filesystem, fs.LocalFileSystem):
        other = getattr(filesystem, "type_name", type(filesystem).__name__)
    if other is not None:
        raise UsageError(
            f"{path} cannot be written to: a dataset is published by atomic renames, which {other} does not have; "
            "write to a folder that every agent sees, and copy it from there",
            path=path,
        )
    return str(directory / path) if scheme is None else str(fs.FileSystem.from_uri(path)[1])
