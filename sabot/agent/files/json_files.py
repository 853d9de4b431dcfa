"""Files of one JSON object a line. A value cannot hold a line feed that is not escaped, so that any cut is at a row."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.json
from pyarrow import fs

from sabot.agent.files.line_ranges import (
    Options,
    copied_option,
    decompressed,
    given_options,
    is_compressed,
    line_of_row,
    lines_of_range,
)
from sabot.dataflow.columns import table_without_rows
from sabot.dataflow.stage import FilePart

_SOMETHING = re.compile(rb"\S")
_ROW = re.compile(r"in row (\d+)")


@dataclass(frozen=True, slots=True)
class JsonFormat:
    def schema(self, filesystem: fs.FileSystem, path: str, options: Options) -> pa.Schema:
        import pyarrow.dataset as ds  # where it is used: an agent without such a source is spared it

        found = ds.JsonFileFormat(**given_options(options)).inspect(path, filesystem)
        parsing = options.get("parse_options")
        if parsing is None or parsing.explicit_schema is None:
            return found
        # pyarrow.dataset infers these columns, too; pyarrow.json gives them as they are asked for, before all others.
        asked = parsing.explicit_schema
        inferred = [] if parsing.unexpected_field_behavior == "ignore" else list(found)
        return pa.schema([*asked, *(field for field in inferred if field.name not in asked.names)])

    def may_be_cut_at_lines(self, path: str, options: Options) -> bool:
        parsing = options.get("parse_options")
        return not is_compressed(path) and (parsing is None or not parsing.newlines_in_values)

    def read(self, opened: pa.NativeFile, part: FilePart, options: Options, wanted: pa.Schema) -> pa.Table:
        reading = copied_option(options.get("read_options")) or pa.json.ReadOptions()
        reading.use_threads = False
        parsing = copied_option(options.get("parse_options")) or pa.json.ParseOptions()
        if len(wanted):
            parsing.explicit_schema = wanted
            parsing.unexpected_field_behavior = "ignore"
        if part.byte_range is None:
            with decompressed(opened, part.file.path) as stream:
                return pa.json.read_json(stream, read_options=reading, parse_options=parsing)
        begin, lines = lines_of_range(opened, *part.byte_range)
        if _SOMETHING.search(lines) is None:
            return table_without_rows(wanted)
        reading.block_size = max(reading.block_size, len(lines))
        try:
            return pa.json.read_json(pa.BufferReader(lines), read_options=reading, parse_options=parsing)
        except pa.ArrowInvalid as error:
            raise pa.ArrowInvalid(_with_line(error, opened, begin, lines)) from error


def _with_line(error: Exception, opened: pa.NativeFile, start: int, lines: pa.Buffer) -> str:
    """What pyarrow says, with the line in the file in place of the row in the range."""
    text = str(error)
    if found := _ROW.search(text):
        line = line_of_row(opened, start, lines, int(found[1]), empty_lines_count=False)
        text = f"{text[: found.start()]}in line {line:,}{text[found.end() :]}"
    return (
        f"{text}; columns have the types that the source's beginning shows: pass schema=, or "
        "parse_options.newlines_in_values where an object goes over several lines"
    )
