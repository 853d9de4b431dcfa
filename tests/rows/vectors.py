"""Reads the tables of docs/protocol.md: the rows as they are written, and the arrays that their values stand for."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

PROTOCOL = Path(__file__).parent.parent.parent / "docs" / "protocol.md"

TYPES: dict[str, pa.DataType] = {
    **{str(kind): kind for kind in (pa.null(), pa.int8(), pa.int64(), pa.uint64(), pa.bool_(), pa.string())},
    **{str(kind): kind for kind in (pa.large_string(), pa.string_view(), pa.binary(), pa.binary(3), pa.date32())},
    **{str(kind): kind for kind in (pa.timestamp("us"), pa.duration("s"), pa.time64("ns"))},
    **{str(kind): kind for kind in (pa.month_day_nano_interval(), pa.float16(), pa.float32(), pa.float64())},
    **{str(kind): kind for kind in (pa.decimal32(9, 2), pa.decimal128(38, 2), pa.decimal128(38, 0))},
    **{str(kind): kind for kind in (pa.decimal256(76, 0), pa.dictionary(pa.int8(), pa.string()))},
    **{str(kind): kind for kind in (pa.list_(pa.int64()), pa.list_(pa.int16()), pa.list_(pa.int32(), 2))},
    **{str(kind): kind for kind in (pa.list_view(pa.int8()), pa.list_view(pa.int16()), pa.list_(pa.int16(), 1))},
    **{str(kind): kind for kind in (pa.map_(pa.string(), pa.int64()), pa.struct({"a": pa.int8(), "b": pa.bool_()}))},
    str(pa.struct({"a": pa.int64(), "b": pa.string()})): pa.struct({"a": pa.int64(), "b": pa.string()}),
}


def table(title: str) -> list[list[str]]:
    """The cells of the table whose header row is `title`, without the header, code marks removed."""
    lines = PROTOCOL.read_text().splitlines()
    rows = []
    for line in lines[lines.index(title) + 2 :]:
        if not line.startswith("| "):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split(" | ")])
    return rows


def array_of(type_name: str, values: list[Any]) -> pa.Array:
    """An array of the type that `type_name` spells, from values as JSON writes them."""
    kind = TYPES[type_name]
    if pa.types.is_decimal(kind):
        values = [decimal.Decimal(value) for value in values]
    elif pa.types.is_floating(kind):
        values = [float(value) for value in values]
    elif pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        values = [bytes.fromhex(value) for value in values]
    elif pa.types.is_date32(kind) or pa.types.is_temporal(kind):
        return _temporal(kind, values)
    elif pa.types.is_map(kind):
        values = [[tuple(entry) for entry in value] for value in values]
    return pa.array(values, kind)


def _temporal(kind: pa.DataType, values: list[Any]) -> pa.Array:
    if pa.types.is_interval(kind):
        return pa.array([pa.MonthDayNano(value) for value in values], kind)
    if pa.types.is_date32(kind):
        epoch = datetime.date(1970, 1, 1)
        return pa.array([epoch + datetime.timedelta(days=value) for value in values], kind)
    return pa.array(values, pa.int64()).cast(kind)


def json_of(cell: str) -> Any:
    return json.loads(cell)
