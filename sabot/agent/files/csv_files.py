"""CSV files, whole or by ranges of lines. Every range is read under the names of the file's head and the pinned types.

A range is a row a line only where no quoted value goes over a line's end. pyarrow reads such values where they happen
to lie in one block; here a range in which there is one is refused, so that no cut ever makes other rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv
from pyarrow import fs

from sabot.agent.files.csv_quotes import Cut, ends_within_value
from sabot.agent.files.line_ranges import (
    LINE_END,
    Options,
    copied_option,
    decompressed,
    given_options,
    is_compressed,
    line_of_row,
    lines_of_range,
)
from sabot.dataflow.stage import FilePart

_SKIPPED_ROWS_MAX = 1000  # before the head, which every range looks for anew
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HEAD_BYTES = 64 << 10  # looked at first
_ROW = re.compile(r"Row #(\d+)")


@dataclass(frozen=True, slots=True)
class CsvFormat:
    def schema(self, filesystem: fs.FileSystem, path: str, options: Options) -> pa.Schema:
        # By the reader that pyarrow.dataset uses, too, but that is wrong about skip_rows.
        with filesystem.open_input_stream(path) as stream, pa.csv.open_csv(stream, **given_options(options)) as reader:
            return reader.schema

    def may_be_cut_at_lines(self, path: str, options: Options) -> bool:
        reading, parsing = _reading(options), _parsing(options)
        return (
            not is_compressed(path)
            and not parsing.newlines_in_values
            and parsing.invalid_row_handler is None
            and reading.encoding.lower() in ("utf8", "utf-8")
            and reading.skip_rows <= _SKIPPED_ROWS_MAX
            and reading.skip_rows_after_names == 0
        )

    def read(self, opened: pa.NativeFile, part: FilePart, options: Options, wanted: pa.Schema) -> pa.Table:
        reading = copied_option(_reading(options))
        reading.use_threads = False
        converting = copied_option(options.get("convert_options")) or pa.csv.ConvertOptions()
        # A type that the user names is read so, and then cast to the source's.
        converting.column_types = {field.name: field.type for field in wanted} | converting.column_types
        converting.include_columns = list(wanted.names)
        converting.include_missing_columns = True
        if part.byte_range is None:
            with decompressed(opened, part.file.path) as stream:
                return pa.csv.read_csv(
                    stream, read_options=reading, parse_options=_parsing(options), convert_options=converting
                )
        return _read_range(opened, part.byte_range, reading, _parsing(options), converting)


def _reading(options: Options) -> pa.csv.ReadOptions:
    return options.get("read_options") or pa.csv.ReadOptions()


def _parsing(options: Options) -> pa.csv.ParseOptions:
    return options.get("parse_options") or pa.csv.ParseOptions()


def _read_range(
    opened: pa.NativeFile,
    byte_range: tuple[int, int],
    reading: pa.csv.ReadOptions,
    parsing: pa.csv.ParseOptions,
    converting: pa.csv.ConvertOptions,
) -> pa.Table:
    names, head_end = _head_of(opened, reading, parsing)
    begin, lines = lines_of_range(opened, *byte_range, head_end=head_end)
    after = begin + lines.size < opened.size()
    if not begin and _has_mark(lines):
        lines = lines.slice(len(_BYTE_ORDER_MARK))
    cut = Cut(lines, before=begin > head_end, after=after)
    reading.skip_rows = 0
    reading.column_names = list(names)
    reading.autogenerate_column_names = False
    reading.block_size = max(reading.block_size, lines.size + len(_BYTE_ORDER_MARK) + 1)
    if not lines.size:
        parsing = copied_option(parsing)
        parsing.ignore_empty_lines = True
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(_marked(lines if lines.size else pa.py_buffer(b"\n"))),
            read_options=reading,
            parse_options=parsing,
            convert_options=converting,
        )
    except pa.ArrowInvalid as error:
        cut.refuse_values_over_lines(None, parsing)
        raise pa.ArrowInvalid(_with_line(error, opened, begin, lines, parsing)) from error
    cut.refuse_values_over_lines(table.num_rows, parsing)
    return table


def _marked(lines: pa.Buffer) -> pa.Buffer:
    """The lines so that pyarrow, which takes a byte order mark off what it reads, leaves one that is in the rows."""
    return pa.py_buffer(_BYTE_ORDER_MARK + lines.to_pybytes()) if _has_mark(lines) else lines


def _has_mark(lines: pa.Buffer) -> bool:
    return bytes(memoryview(lines)[: len(_BYTE_ORDER_MARK)]) == _BYTE_ORDER_MARK


@dataclass(frozen=True, slots=True)
class _Head:
    """The line that names the columns, or the first one, where it begins, and where the first row does."""

    line: bytes
    start: int
    end: int


def _head_of(
    opened: pa.NativeFile, reading: pa.csv.ReadOptions, parsing: pa.csv.ParseOptions
) -> tuple[Sequence[str], int]:
    """The columns' names, and where the first row begins."""
    size, wanted = opened.size(), _HEAD_BYTES
    while True:
        opened.seek(0)
        text = opened.read(min(wanted, size))
        found = _head_in(text, reading, parsing)
        if found.end < len(text) or len(text) == size:
            break
        wanted *= 4
    if reading.column_names:
        return reading.column_names, found.end
    naming = copied_option(reading)
    naming.skip_rows = 0
    line = _marked(pa.py_buffer(found.line)) if found.start else found.line
    return pa.csv.read_csv(pa.BufferReader(line), read_options=naming, parse_options=parsing).column_names, found.end


def _head_in(text: bytes, reading: pa.csv.ReadOptions, parsing: pa.csv.ParseOptions) -> _Head:
    start = 0
    for _ in range(reading.skip_rows):
        start = _line_end(text, start)
    if reading.column_names:
        return _Head(b"", start, start)
    end = _line_end(text, start)
    while end < len(text) and parsing.ignore_empty_lines and not _without_mark(text[start:end]).strip(b"\r\n"):
        start, end = end, _line_end(text, end)
    while ends_within_value(_without_mark(text[start:end]), parsing) and end < len(text):
        end = _line_end(text, end)
    return _Head(text[start:end], start, start if reading.autogenerate_column_names else end)


def _without_mark(line: bytes) -> bytes:
    return line.removeprefix(_BYTE_ORDER_MARK)


def _line_end(text: bytes, start: int) -> int:
    found = LINE_END.search(text, start)
    return found.end() if found else len(text)


def _with_line(
    error: Exception, opened: pa.NativeFile, begin: int, lines: pa.Buffer, parsing: pa.csv.ParseOptions
) -> str:
    """What pyarrow says, with the line in the file in place of the row in the range."""
    text = str(error)
    if found := _ROW.search(text):
        counts = not parsing.ignore_empty_lines
        line = line_of_row(opened, begin, lines, int(found[1]) - 1, empty_lines_count=counts)
        text = f"{text[: found.start()]}line {line:,}{text[found.end() :]}"
    if "conversion error" in text:
        text += (
            "; columns have the types that the source's beginning shows: name this one's in "
            "convert_options=pyarrow.csv.ConvertOptions(column_types={...}), or pass schema="
        )
    return text
