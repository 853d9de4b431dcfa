"""Whether a CSV value goes over a line's end, within quotes or after an escape: where it does, lines are not rows."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv

from sabot.agent.files.line_ranges import LINE_END

_EMPTY_LINES = re.compile(rb"\n\n+")
_BLOCK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Cut:
    """Lines out of a file, which has others before and after them."""

    lines: pa.Buffer
    before: bool
    after: bool

    def refuse_values_over_lines(self, rows: int | None, parsing: pa.csv.ParseOptions) -> None:
        """ArrowInvalid unless each line is a row: `rows` came of them, or None where they could not be read.

        Where the first line of a file begins a row and each range passes this, the first line of every range does.
        """
        marks = [re.escape(mark.encode()) for mark in (parsing.quote_char, parsing.escape_char) if mark]
        if not (self.before or self.after) or not any(re.search(mark, self.lines) for mark in marks):
            return
        if rows is None:
            lines = [bytes(line) for line in LINE_END.split(memoryview(self.lines))]
            if not lines[-1]:
                lines.pop()
            has_one = any(ends_within_value(line, parsing) for line in (lines if self.after else lines[:-1]))
        else:
            count, last = _counted(self.lines, empty_lines_count=not parsing.ignore_empty_lines)
            has_one = rows != count or (self.after and ends_within_value(last, parsing))
        if has_one:
            raise pa.ArrowInvalid(
                "a quoted or escaped value goes over a line's end, and the file is read in parts; pass "
                "parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True), with which it is read whole"
            )


def _counted(text: pa.Buffer, *, empty_lines_count: bool) -> tuple[int, bytes]:
    """How many lines some text has, and the last one. Without a copy of it, and without an object for each of what may
    be millions.
    """
    count, last, start = 0, b"", 0
    while start < text.size:
        block = _block_at(text, start)
        start += len(block)
        block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        count += block.count(b"\n") + (not block.endswith(b"\n"))
        if not empty_lines_count:
            count -= sum(len(run[0]) - 1 for run in _EMPTY_LINES.finditer(block)) + block.startswith(b"\n")
        last = block[block.rfind(b"\n", 0, len(block) - 1) + 1 :]
    return count, last


def _block_at(text: pa.Buffer, start: int) -> bytes:
    """Whole lines from there on, about a block of them."""
    size = _BLOCK_BYTES
    while start + size < text.size:
        block = text.slice(start, size).to_pybytes()
        end = block.rfind(b"\n") + 1
        if end:
            return bytes(block[:end])
        size *= 4
    return bytes(text.slice(start).to_pybytes())


def ends_within_value(line: bytes, parsing: pa.csv.ParseOptions) -> bool:
    """Whether a line that begins a row leaves its last value open, as pyarrow's parser goes through it."""
    quote, escape = (mark.encode() if mark else None for mark in (parsing.quote_char, parsing.escape_char))
    delimiter = parsing.delimiter.encode()
    line = line.rstrip(b"\r\n")
    place, size = 0, len(line)
    while place < size:
        if quote is not None and line[place : place + 1] == quote:
            place = _quoted_end(line, place + 1, quote, escape, double_quote=bool(parsing.double_quote))
            if place < 0:
                return True
        while place < size and line[place : place + 1] != delimiter:
            place += 1
            if escape is not None and line[place - 1 : place] == escape:
                if place >= size:
                    return True
                place += 1
        place += 1
    return False


def _quoted_end(line: bytes, place: int, quote: bytes, escape: bytes | None, *, double_quote: bool) -> int:
    """What follows the quote that closes the value; -1 where none does."""
    while place < len(line):
        mark = line[place : place + 1]
        if mark == escape:
            place += 2
        elif mark != quote:
            place += 1
        elif double_quote and line[place + 1 : place + 2] == quote:
            place += 2
        else:
            return place + 1
    return -1
