"""What lies under a source's paths: its files, pinned by size, modification time and etag, and their one schema.

Called on the agent that was asked, in a plain thread: it reads folders, footers and first blocks, never all rows. As in
pyarrow.dataset the schema is the first file's, with the columns that the paths give, unless it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from sabot.agent.files.file_formats import FORMATS
from sabot.agent.files.file_listing import Listing, list_source
from sabot.agent.files.ipc_files import batch_bytes
from sabot.agent.files.parquet_sizes import decoded_bytes
from sabot.agent.files.path_columns import path_schema, path_values
from sabot.dataflow.columns import plain_schema
from sabot.dataflow.estimates import fixed_width
from sabot.dataflow.scan import SourceRequest
from sabot.dataflow.stage import SourceFile
from sabot.errors import UsageError

_FORMATS = ("parquet", *FORMATS)
_REQUESTS_AT_ONCE = 8  # to a file system that is far away


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The files of a source in a fixed order, their schema, and of it the columns that the paths give."""

    schema: pa.Schema
    files: tuple[SourceFile, ...]
    filesystem: fs.FileSystem
    path_columns: pa.Schema
    column_widths: tuple[float, ...] = ()  # by field, the mean bytes of a value in Arrow's form; none if not known


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inspected:
    file: SourceFile
    schema: pa.Schema | None = None  # None: not looked at
    column_bytes: Mapping[str, int] = field(default_factory=dict)


def describe_source(request: SourceRequest) -> Source:
    """Lists and pins the files. UsageError where a path is missing, a file is not of the format, or files do not fit
    together.
    """
    if request.format not in _FORMATS:
        raise UsageError(
            f"there is no reader for {request.format!r}; known are {', '.join(sorted(_FORMATS))}", format=request.format
        )
    if request.schema is not None and not isinstance(request.schema, pa.Schema):
        raise UsageError(f"schema= takes a pyarrow.Schema, not {type(request.schema).__name__}")
    listing = list_source(request.paths, request.filesystem)
    if not listing.files and request.schema is None:
        raise UsageError(
            f"the folder {listing.folder} holds no files; names that begin with '.' or '_' are left out. "
            "Pass schema= to read it as a dataset without rows",
            path=listing.folder,
        )
    found = _inspect_all(request, listing)
    from_paths = _path_columns(request, listing)
    schema = request.schema if request.schema is not None else _schema_of(request, listing, found, from_paths)
    _check_castable(found, schema, from_paths)
    values = path_values(listing, request.partitioning, from_paths)
    kept = [name for name in from_paths.names if name in schema.names]
    files = tuple(
        replace(item.file, partition=tuple((name, value[name]) for name in kept if name in value))
        for item, value in zip(found, values, strict=True)
    )
    return Source(
        schema=plain_schema(schema),
        files=files,
        filesystem=listing.filesystem,
        path_columns=pa.schema([from_paths.field(name) for name in kept]),
        column_widths=_widths(schema, found, kept) if request.format == "parquet" else (),
    )


def _widths(schema: pa.Schema, found: Sequence[_Inspected], from_paths: Sequence[str]) -> tuple[float, ...]:
    """Texts in paths are taken to be as long as paths are."""
    rows = max(1, sum(sum(item.file.row_group_rows) for item in found))
    path_length = max((len(item.file.path) for item in found), default=0)
    widths = []
    for column in schema:
        width = fixed_width(column.type)
        if width is None and column.name in from_paths:
            width = float(path_length)
        elif width is None:
            width = sum(item.column_bytes.get(column.name, 0) for item in found) / rows
        widths.append(width)
    return tuple(widths)


def _path_columns(request: SourceRequest, listing: Listing) -> pa.Schema:
    try:
        return path_schema(listing, request.partitioning, request.schema)
    except pa.ArrowException as error:
        raise UsageError(f"the files' paths do not fit the partitioning: {error}") from error


def _inspect_all(request: SourceRequest, listing: Listing) -> list[_Inspected]:
    inspect: Callable[[Any], _Inspected] = lambda info: _inspect(request, listing.filesystem, info)  # noqa: E731
    if isinstance(listing.filesystem, fs.LocalFileSystem):
        return [inspect(info) for info in listing.files]
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="sabot-sources") as pool:
        return list(pool.map(inspect, listing.files))


def _inspect(request: SourceRequest, filesystem: fs.FileSystem, info: Any) -> _Inspected:
    file = SourceFile(path=info.path, size_bytes=info.size or 0, modified_ns=info.mtime_ns or 0)
    try:
        if request.format == "parquet":
            return _inspect_parquet(filesystem, file)
        file = replace(file, cut_at_lines=FORMATS[request.format].may_be_cut_at_lines(info.path, request.options))
        if isinstance(filesystem, fs.LocalFileSystem) and request.format != "ipc":
            return _Inspected(file=file)
        with filesystem.open_input_file(info.path) as opened:
            sizes = batch_bytes(opened) if request.format == "ipc" else ()
            return _Inspected(file=replace(file, etag=etag_of(opened), row_group_bytes=sizes))
    except FileNotFoundError as error:
        raise UsageError(
            f"{info.path} was removed while its source was listed; list it again", path=info.path
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(info.path, request.format, error) from error


def _inspect_parquet(filesystem: fs.FileSystem, file: SourceFile) -> _Inspected:
    with filesystem.open_input_file(file.path) as opened, pq.ParquetFile(opened, pre_buffer=False) as parquet:
        groups = [parquet.metadata.row_group(index) for index in range(parquet.metadata.num_row_groups)]
        schema = parquet.schema_arrow.remove_metadata()
        etag = etag_of(opened)
        column_bytes = decoded_bytes(parquet.metadata, schema)
    return _Inspected(
        schema=schema,
        column_bytes=column_bytes,
        file=replace(
            file,
            etag=etag,
            row_group_rows=tuple(group.num_rows for group in groups),
            row_group_bytes=tuple(group.total_byte_size for group in groups),
        ),
    )


def _schema_of(
    request: SourceRequest, listing: Listing, found: Sequence[_Inspected], from_paths: pa.Schema
) -> pa.Schema:
    """The first file's columns, and those of the paths."""
    first = found[0].schema
    if first is None:
        first = _first_schema(request, listing)
    try:
        return pa.unify_schemas([first, from_paths]) if len(from_paths) else first
    except pa.ArrowException as error:
        raise UsageError(
            f"a column of the files is also in their paths, as another type: {error}; pass schema="
        ) from error


def _first_schema(request: SourceRequest, listing: Listing) -> pa.Schema:
    """The first file's schema. Columns without any value in it, which a text gives no type, have the next file's."""
    schema: pa.Schema | None = None
    for info in listing.files:
        try:
            other = FORMATS[request.format].schema(listing.filesystem, info.path, request.options)
        except (pa.ArrowException, OSError, TypeError) as error:
            raise _unreadable(info.path, request.format, error) from error
        schema = other if schema is None else _filled(schema, other)
        if request.format == "ipc" or not any(pa.types.is_null(kind) for kind in schema.types):
            break
    assert schema is not None
    return schema


def _filled(schema: pa.Schema, other: pa.Schema) -> pa.Schema:
    return pa.schema(
        [
            other.field(field.name) if pa.types.is_null(field.type) and field.name in other.names else field
            for field in schema
        ]
    )


def _check_castable(found: Sequence[_Inspected], schema: pa.Schema, from_paths: pa.Schema) -> None:
    """UsageError naming the column and the file where no cast leads from the file's type to the source's."""
    wanted = {field.name: field.type for field in schema if field.name not in from_paths.names}
    known: dict[tuple[pa.DataType, pa.DataType], bool] = {}
    for item in found:
        for column in item.schema or ():
            target = wanted.get(column.name, column.type)
            if column.type.equals(target):
                continue
            pair = (column.type, target)
            if pair not in known:
                known[pair] = _can_cast(*pair)
            if not known[pair]:
                raise UsageError(
                    f"two files of one source differ in schema: column {column.name!r} is {column.type} in "
                    f"{item.file.path}, which cannot become {target}, as in {found[0].file.path} or schema=; "
                    "read them as two datasets, or rewrite one of them",
                    paths=[found[0].file.path, item.file.path],
                    column=column.name,
                )


def _can_cast(kind: pa.DataType, target: pa.DataType) -> bool:
    try:
        pa.array([], kind).cast(target)
    except (pa.ArrowException, NotImplementedError):
        return False
    return True


def _unreadable(path: str, format: str, error: Exception) -> UsageError:
    return UsageError(f"{path} cannot be read as {format}: {error}", path=path)


def etag_of(opened: pa.NativeFile) -> str:
    """The etag of a file that is open; empty where the file system has none."""
    metadata: Mapping[str, bytes] = opened.metadata() or {}
    return metadata.get("ETag", b"").decode(errors="replace")


def pinned_faults(file: SourceFile, filesystem: fs.FileSystem, opened: pa.NativeFile) -> Iterable[str]:
    """What has changed about `file` since it was pinned, in words. `opened` is what is there now: an etag that came
    with it tells by itself.
    """
    size = opened.size()
    if size != file.size_bytes:
        yield f"its size was {file.size_bytes:,} bytes and is {size:,}"
    elif file.etag:
        if (etag := etag_of(opened)) != file.etag:
            yield f"its etag was {file.etag} and is {etag}"
    elif (filesystem.get_file_info(file.path).mtime_ns or 0) != file.modified_ns:
        yield "it was modified"
