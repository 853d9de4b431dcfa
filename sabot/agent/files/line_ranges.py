"""Ranges of a text file's bytes as lines: a range has those that begin in it, so that any cut gives each line once.

Cuts are made after line feeds. Who cuts has to know that no value holds one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pickle import dumps, loads
from typing import Any

import pyarrow as pa

Options = Mapping[str, Any]

LINE_END = re.compile(rb"\r\n|\r|\n")
_LOOK_BYTES = 64 << 10  # read at a time where a line's end is looked for
_COUNT_BYTES = 8 << 20
_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


def is_compressed(path: str) -> bool:
    """Whether the file is to be decompressed, by its name, as pyarrow's file systems do in streams."""
    return path.endswith(tuple(_CODECS))


def decompressed(opened: pa.NativeFile, path: str) -> pa.NativeFile:
    """The open file from its beginning, as its text."""
    codec = next((codec for ending, codec in _CODECS.items() if path.endswith(ending)), None)
    return opened if codec is None else pa.CompressedInputStream(opened, codec)


def lines_of_range(opened: pa.NativeFile, start: int, stop: int, *, head_end: int = 0) -> tuple[int, pa.Buffer]:
    """Where the lines begin that begin in the range, and those lines to the end of the last one, however far that is:
    in memory of the pool, so that the agent counts it.

    Before `head_end`, where a line begins, there are none.
    """
    size = opened.size()
    first = head_end if start <= head_end else _line_start(opened, start, size)
    if first >= min(stop, size):
        return first, pa.py_buffer(b"")
    end = _line_start(opened, stop, size)
    opened.seek(first)
    lines = pa.allocate_buffer(end - first, resizable=True)
    read = 0
    while read < lines.size and (more := opened.readinto(memoryview(lines)[read:])):
        read += more
    return first, lines.slice(0, read)


def line_of_row(opened: pa.NativeFile, start: int, lines: pa.Buffer, row: int, *, empty_lines_count: bool) -> int:
    """The number in the file, from 1, of the line with that row of `lines`, which begin at `start`. It reads all that
    is before.
    """
    every = LINE_END.split(memoryview(lines))
    rows = [index for index, line in enumerate(every) if empty_lines_count or bytes(line).strip()]
    return _lines_before(opened, start) + 1 + (rows[row] if row < len(rows) else len(every) - 1)


def _lines_before(opened: pa.NativeFile, position: int) -> int:
    opened.seek(0)
    found, left = 0, position
    while left > 0 and (block := opened.read(min(left, _COUNT_BYTES))):
        found += block.count(b"\n")
        left -= len(block)
    return found


def copied_option(option: Any) -> Any:
    """Options are the plan's, and are changed for a file: pyarrow has no other way to copy them."""
    return None if option is None else loads(dumps(option))


def given_options(options: Options) -> dict[str, Any]:
    """Those that are there."""
    return {name: option for name, option in options.items() if option is not None}


def _line_start(opened: pa.NativeFile, position: int, size: int) -> int:
    """The first beginning of a line at `position` or later; the file's end where there is none."""
    if position <= 0:
        return 0
    position = min(position, size) - 1  # the byte before, which may end a line
    opened.seek(position)
    while position < size:
        block = opened.read(min(_LOOK_BYTES, size - position))
        if not block:
            break
        found = block.find(b"\n")
        if found >= 0:
            return int(position + found + 1)
        position += len(block)
    return size
