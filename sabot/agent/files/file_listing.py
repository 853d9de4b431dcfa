"""Finds the files that a source's paths stand for, on any of pyarrow's file systems: files, folders, globs and URIs.

What is hidden (names that begin with "." or "_") is not found in folders, and by no glob that does not say so. What
does not exist is a UsageError that names the nearest thing that does.
"""

from __future__ import annotations

import difflib
import fnmatch
import pickle
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import fs

from sabot.agent.files.publish import complete_around
from sabot.errors import UsageError

_HIDDEN = (".", "_")
_MAGIC = re.compile(r"[*?\[]")
_MAGIC_OF_URIS = re.compile(r"[*\[]")  # after a question mark come the options of the file system
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_NEAR_FOLDERS_MAX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Files in a fixed order; `folder` is the one folder that was asked for, empty where it was something else."""

    filesystem: Any
    files: tuple[Any, ...]
    folder: str = ""


def is_uri(path: str) -> bool:
    """Whether the path names its file system."""
    return _SCHEME.match(path) is not None


def pack_filesystem(filesystem: fs.FileSystem) -> bytes:
    """The form in which a file system goes to other agents: empty for the local one."""
    if isinstance(filesystem, fs.LocalFileSystem):
        return b""
    try:
        return pickle.dumps(filesystem)
    except Exception as error:
        raise UsageError(
            f"files of a {filesystem.type_name} file system cannot be read by agents, to which it cannot be sent: "
            f"{error}; put the files where every agent finds them"
        ) from error


def unpack_filesystem(packed: bytes) -> fs.FileSystem:
    """The file system again."""
    return pickle.loads(packed) if packed else fs.LocalFileSystem()


def list_source(paths: Sequence[str], filesystem: fs.FileSystem | None = None) -> Listing:
    """The files of `paths`, sorted within a folder or glob. Only a folder may be found empty."""
    if not paths:
        raise UsageError("no paths were given; name at least one file, folder or glob")
    found: list[Any] = []
    where: fs.FileSystem | None = None
    folder = ""
    for path in paths:
        there, inner = _located(path, filesystem)
        if where is not None and not there.equals(where):
            raise UsageError(f"{path} is on another file system than {paths[0]}; read them as two datasets", path=path)
        where = there
        local = _on_this_machine(there, inner)
        if local is not None:
            complete_around(local)  # a dataset that is being published is read whole
        try:
            files, is_folder = _expand(there, inner, path)
        except OSError as error:
            raise UsageError(f"{path} cannot be listed: {error}", path=path) from error
        found += files
        folder = inner if is_folder and len(paths) == 1 else ""
    return Listing(filesystem=where, files=tuple(found), folder=folder)


def _on_this_machine(filesystem: fs.FileSystem, path: str) -> str | None:
    """The path as the operating system knows it; None where it does not."""
    if isinstance(filesystem, fs.SubTreeFileSystem):
        return _on_this_machine(filesystem.base_fs, posixpath.join(filesystem.base_path, path))
    return path if isinstance(filesystem, fs.LocalFileSystem) else None


def sees(path: str, packed: bytes) -> bool:
    """Whether there is something at the path of a file system, here and now."""
    try:
        return bool(unpack_filesystem(packed).get_file_info(path).type is not fs.FileType.NotFound)
    except (OSError, pa.ArrowException):
        return False


def _located(path: str, filesystem: fs.FileSystem | None) -> tuple[fs.FileSystem, str]:
    """The file system and the path on it; of a URI's path only what comes before a glob is read as a URI."""
    if filesystem is not None:
        if is_uri(path):
            raise UsageError(f"{path} names its file system; pass no filesystem=, or a path of that", path=path)
        return filesystem, path
    if not is_uri(path):
        if not path.startswith("/"):
            raise UsageError(
                f"the path {path!r} is relative, and an agent does not know to what; pass it as an absolute path",
                path=path,
            )
        return fs.LocalFileSystem(), path
    path, question, options = path.partition("?")
    magic = _MAGIC_OF_URIS.search(path)
    start = path.rfind("/", 0, magic.start()) if magic else len(path)
    try:
        where, inner = fs.FileSystem.from_uri(path[:start] + question + options)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{path} is not the URI of a file system that pyarrow knows: {error}", path=path) from error
    return where, inner + path[start:]


def _expand(filesystem: fs.FileSystem, path: str, name: str) -> tuple[list[Any], bool]:
    """The files for one path, and whether it is a folder."""
    info = filesystem.get_file_info(path)
    if info.type is fs.FileType.File:
        return [info], False
    if info.type is fs.FileType.Directory:
        return _files_below(filesystem, path), True
    if _MAGIC.search(path):
        found = sorted(_matches(filesystem, path), key=lambda match: str(match.path))
        if found:
            return found, False
    raise UsageError(
        f"no file matches {name}; {nearest_existing(path, filesystem)}", path=name, unseen=path, filesystem=filesystem
    )


def _files_below(filesystem: fs.FileSystem, folder: str) -> list[Any]:
    infos = filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
    prefix = folder.rstrip("/") + "/"
    return sorted(
        (
            info
            for info in infos
            if info.type is fs.FileType.File
            and not any(part.startswith(_HIDDEN) for part in info.path.removeprefix(prefix).split("/"))
        ),
        key=lambda info: str(info.path),
    )


def _matches(filesystem: fs.FileSystem, pattern: str) -> Iterator[Any]:
    """The files that a glob matches; `**` stands for any number of folders."""
    parts = pattern.split("/")
    first = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
    found = {info.path: info for info in _below(filesystem, "/".join(parts[:first]) or "/", parts[first:])}
    yield from found.values()  # two readings of `**` may lead to one file


def _below(filesystem: fs.FileSystem, folder: str, parts: Sequence[str]) -> Iterator[Any]:
    part, rest = parts[0], parts[1:]
    if part == "**" and rest:
        yield from _below(filesystem, folder, rest)
    elif not _MAGIC.search(part):
        info = filesystem.get_file_info(posixpath.join(folder, part))
        if rest and info.type is fs.FileType.Directory:
            yield from _below(filesystem, info.path, rest)
        elif not rest and info.type is fs.FileType.File:
            yield info
        return
    for info in filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
        if not fnmatch.fnmatchcase(info.base_name, part) or (info.base_name.startswith(".") and part[0] != "."):
            continue
        if info.type is fs.FileType.Directory and (rest or part == "**"):
            yield from _below(filesystem, info.path, parts if part == "**" else rest)
        elif info.type is fs.FileType.File and not rest:
            yield info


def nearest_existing(path: str, filesystem: fs.FileSystem | None = None) -> str:
    """Advice for a path that does not exist: the most similar name beside it, or the folder up to which it does."""
    filesystem = filesystem or fs.LocalFileSystem()
    missing = path.rstrip("/")
    for _ in range(_NEAR_FOLDERS_MAX):
        folder = posixpath.dirname(missing)
        if not folder or folder == missing or filesystem.get_file_info(folder).type is fs.FileType.Directory:
            break
        missing = folder
    try:
        names = [info.base_name for info in filesystem.get_file_info(fs.FileSelector(folder))]
    except OSError as error:
        return f"the folder {folder} cannot be read: {error}"
    similar = difflib.get_close_matches(posixpath.basename(missing), names, n=1, cutoff=0.5)
    if similar:
        return f"the nearest name that exists is {posixpath.join(folder, similar[0])}"
    return f"the folder {folder} exists, and holds nothing of a similar name"
