"""Python modules of a user's own on their way to the workers of his jobs: one zip archive, made where the files are.

The archive is the same for the same files. Compiled extension modules cannot be imported from it and are refused.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sabot.errors import LimitReached, UsageError

ARCHIVE_BYTES_MAX = 32 * 1024 * 1024
_EXTENSIONS = {".so", ".pyd"}
_LEFT_OUT = {"__pycache__"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PyModules:
    """`archive` goes on the workers' sys.path; `names` are the modules and packages in it."""

    names: tuple[str, ...]
    archive: bytes


def pack_modules(paths: Iterable[str | os.PathLike[str]]) -> PyModules | None:
    """Zips .py files and package folders; None where there are none."""
    if isinstance(paths, str | os.PathLike):
        raise UsageError(f"py_modules takes a list of paths; write py_modules=[{os.fspath(paths)!r}]")
    buffer = io.BytesIO()
    names: dict[str, Path] = {}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in map(Path, paths):
            name = _module_name(path)
            if name in names:
                raise UsageError(f"py_modules: {path} and {names[name]} are both modules named {name}; send one")
            names[name] = path
            for file, inside in _files_of(path):
                if file.suffix in _EXTENSIONS:
                    raise UsageError(
                        f"py_modules: {file} is a compiled module, which cannot travel; install it on the agents"
                    )
                archive.writestr(zipfile.ZipInfo(inside, _EPOCH), file.read_bytes(), zipfile.ZIP_DEFLATED)
    if not names:
        return None
    if buffer.tell() > ARCHIVE_BYTES_MAX:
        raise LimitReached(
            f"py_modules: the modules measure {buffer.tell():,} bytes zipped, the limit is {ARCHIVE_BYTES_MAX:,}; "
            "install large packages on the agents"
        )
    return PyModules(names=tuple(names), archive=buffer.getvalue())


def _module_name(path: Path) -> str:
    name = path.stem if path.suffix == ".py" else path.name
    is_module = path.is_file() and path.suffix == ".py"
    is_package = path.is_dir() and any(path.glob("*.py"))
    if not (is_module or is_package):
        raise UsageError(f"py_modules: {path} is neither a .py file nor a folder with .py files in it")
    if not name.isidentifier():
        raise UsageError(f"py_modules: {path} cannot be imported by the name {name!r}; rename it")
    return name


def _files_of(path: Path) -> Iterator[tuple[Path, str]]:
    if path.is_file():
        yield path, path.name
        return
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path.parent)
        if file.is_file() and not _LEFT_OUT.intersection(inside.parts):
            yield file, inside.as_posix()
