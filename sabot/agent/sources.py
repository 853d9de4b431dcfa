"""What lies under a source's paths: its files, pinned by size and modification time, and the one schema they share.

Called on the agent that was asked, in a plain thread: it reads folders and footers, never rows. What the user got
wrong is a UsageError that names the path and the nearest thing that exists.
"""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from sabot.dataflow.stage import SourceFile
from sabot.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The files of a source in a fixed order, and their schema."""

    schema: pa.Schema
    files: tuple[SourceFile, ...]


def describe_source(format: str, paths: Sequence[str]) -> Source:
    """List `paths`: files, folders (with all that lies in them, hidden names aside) and globs, all absolute.

    Raises UsageError where a path is missing or relative, a file is not of this format, or two files differ in schema.
    """
    inspect = _INSPECTORS.get(format)
    if inspect is None:
        raise UsageError(
            f"there is no reader for {format!r}; known are {', '.join(sorted(_INSPECTORS))}", format=format
        )
    files = [file for path in paths for file in list_files(path)]
    if not files:
        raise UsageError("no paths were given; name at least one file, folder or glob")
    found = [_inspect(inspect, format, path) for path in files]
    schema = found[0].schema
    for file, other in zip(files[1:], found[1:], strict=True):
        schema = _same_schema(schema, files[0], other.schema, file, null_gives_way=format == "csv")
    return Source(schema=schema, files=tuple(item.file for item in found))


def list_files(path: str) -> list[str]:
    """The files that `path` stands for, sorted within a folder or glob; never empty."""
    if not os.path.isabs(path):  # noqa: PTH117 - a string from another machine, judged as it is
        raise UsageError(
            f"the path {path!r} is relative, and an agent does not know to what; pass it as an absolute path", path=path
        )
    target = Path(path)
    if target.is_file():
        return [path]
    if target.is_dir():
        files = sorted(str(file) for file in target.rglob("*") if file.is_file() and not _is_hidden(file, target))
        if not files:
            raise UsageError(
                f"the folder {path} holds no files; names that begin with '.' or '_' are left out", path=path
            )
        return files
    if glob.has_magic(path):
        files = sorted(match for match in glob.glob(path, recursive=True) if Path(match).is_file())  # noqa: PTH207
        if files:
            return files
    raise UsageError(f"no file matches {path}; {nearest_existing(target)}", path=path)


def nearest_existing(path: Path) -> str:
    """Advice for a path that does not exist: the most similar name beside it, or the folder up to which it does."""
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    folder = missing.parent
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        return f"the folder {folder} cannot be read: {error.strerror}"
    similar = difflib.get_close_matches(missing.name, names, n=1, cutoff=0.5)
    if similar:
        return f"the nearest name that exists is {folder / similar[0]}"
    return f"the folder {folder} exists, and holds nothing of a similar name"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inspected:
    file: SourceFile
    schema: pa.Schema


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _inspect(inspect: Callable[[str], _Inspected], format: str, path: str) -> _Inspected:
    try:
        return inspect(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path} was removed while its source was listed; list it again", path=path) from error
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read as {format}: {error}", path=path) from error


def _inspect_parquet(path: str) -> _Inspected:
    pinned = Path(path).stat()
    with pq.ParquetFile(path, pre_buffer=False) as file:
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        schema = file.schema_arrow.remove_metadata()
    return _Inspected(
        schema=schema,
        file=SourceFile(
            path=path,
            size_bytes=pinned.st_size,
            modified_ns=pinned.st_mtime_ns,
            row_group_rows=tuple(group.num_rows for group in groups),
            row_group_bytes=tuple(group.total_byte_size for group in groups),
        ),
    )


def _inspect_csv(path: str) -> _Inspected:
    pinned = Path(path).stat()
    with pa.csv.open_csv(path, read_options=pa.csv.ReadOptions(use_threads=False)) as reader:
        schema = reader.schema
    file = SourceFile(path=path, size_bytes=pinned.st_size, modified_ns=pinned.st_mtime_ns)
    return _Inspected(schema=schema, file=file)


_INSPECTORS: dict[str, Callable[[str], _Inspected]] = {"parquet": _inspect_parquet, "csv": _inspect_csv}


def _same_schema(
    first: pa.Schema, first_path: str, other: pa.Schema, other_path: str, *, null_gives_way: bool
) -> pa.Schema:
    """The schema of both files; nullability and, for types guessed from text, an empty column may differ."""
    fields: list[pa.Field] = []
    for index in range(max(len(first), len(other))):
        ours = first.field(index) if index < len(first) else None
        theirs = other.field(index) if index < len(other) else None
        merged = _merge(ours, theirs, null_gives_way) if ours is not None and theirs is not None else None
        if merged is None:
            raise UsageError(
                f"two files of one source differ in schema: field {index} is {_describe(ours)} in {first_path} "
                f"and {_describe(theirs)} in {other_path}; read them as two datasets, or rewrite one of them",
                paths=[first_path, other_path],
            )
        fields.append(merged)
    return pa.schema(fields)


def _merge(ours: pa.Field, theirs: pa.Field, null_gives_way: bool) -> pa.Field | None:
    if ours.name != theirs.name:
        return None
    kinds = [ours.type, theirs.type]
    if null_gives_way and not ours.type.equals(theirs.type):
        kinds = [kind for kind in kinds if not pa.types.is_null(kind)]
    if any(not kind.equals(kinds[0]) for kind in kinds):
        return None
    return pa.field(ours.name, kinds[0], nullable=ours.nullable or theirs.nullable)


def _describe(field: pa.Field | None) -> str:
    return "missing" if field is None else f"{field.name}: {field.type}"


def pinned_faults(file: SourceFile) -> Iterable[str]:
    """What has changed about `file` since it was pinned, in words; raises OSError where it is not there."""
    now = Path(file.path).stat()
    if now.st_size != file.size_bytes:
        yield f"its size was {file.size_bytes:,} bytes and is {now.st_size:,}"
    if now.st_mtime_ns != file.modified_ns:
        yield "it was modified"
