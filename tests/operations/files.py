"""Files: what pyarrow has written is read, and what is written is what pyarrow would have written, whoever reads it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet as pq
from hypothesis import strategies as st

from sabot.dataflow.dataset import Dataset
from sabot.dataflow.wire_form import to_wire, wire_schema
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.tables import KEY_VALUES, NUMBERS, PAYLOADS, columns

from .arena import Arena, Operation

# Values that text says without doubt.
_IN_TEXT: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): NUMBERS[pa.int64()],
    pa.float64(): st.integers(-1000, 1000).map(lambda n: n / 8),
    pa.string(): st.text("abä", min_size=1, max_size=4),
    pa.bool_(): st.booleans(),
    pa.date32(): KEY_VALUES[pa.date32()],
}
_FOLDER_KEYS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int32(): st.integers(0, 3),
    pa.string(): st.sampled_from(["a", "b c", "d=e", "ä/ö"]),
    pa.dictionary(pa.int32(), pa.string()): st.sampled_from(["x", "y"]),
}
_FORMATS = ("parquet", "ipc", "csv")


@cache
def _kinds(file_format: str) -> dict[pa.DataType, st.SearchStrategy[Any]]:
    """The types that pyarrow itself writes in this format and reads again."""
    if file_format in ("csv", "json"):
        return {kind: values for kind, values in _IN_TEXT.items() if file_format == "csv" or kind != pa.date32()}
    known = {**PAYLOADS, **KEY_VALUES}
    return {kind: values for kind, values in known.items() if file_format == "ipc" or _parquet_has(kind)}


def _parquet_has(kind: pa.DataType) -> bool:
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.table({"x": pa.nulls(2, kind)}), sink)
        return bool(pq.read_schema(pa.BufferReader(sink.getvalue())).field("x").type == kind)
    except (pa.ArrowException, NotImplementedError):
        return False


@st.composite
def _cases(draw: st.DrawFn, file_format: str) -> dict[str, Any]:
    rows = draw(st.sampled_from([1, 12] if file_format == "json" else [0, 1, 12]))  # pyarrow reads no empty JSON file
    some = _kinds(file_format)
    table = pa.table(
        {
            "a": draw(columns(some, rows)),
            "b": draw(columns(some, rows)),
            "i": pa.array(range(rows), pa.int64()),
            "key": draw(columns(_FOLDER_KEYS, rows)),
        }
    )
    if file_format == "csv":
        table = pa.table({name: _without_null_texts(table[name]) for name in table.column_names})
    return {"table": table, "format": file_format, "partitioning": draw(st.sampled_from([None, ["key"]]))}


def _without_null_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """CSV has one form for null and for the empty text."""
    texts = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return texts.fill_null("none") if pa.types.is_string(texts.type) else column


def _write(arena: Arena, case: dict[str, Any]) -> None:
    table, kind = case["table"], case["format"]
    asked = {"format": kind}
    if case["partitioning"]:
        asked |= {"partitioning": case["partitioning"], "partitioning_flavor": "hive"}
    ours, theirs = arena.new_folder(), arena.new_folder()
    arena.session.from_table(table).repartition(num_partitions=3).write_dataset(ours, **asked).close()
    ds.write_dataset(_decoded(table) if kind == "ipc" else table, theirs, **asked)
    if not table.num_rows:
        assert sum(ds.dataset(path, format=kind).count_rows() for path in ours.rglob(f"*.{kind}")) == 0
        return
    on_wire = wire_schema(table.schema)
    folders = ds.partitioning(pa.schema([on_wire.field("key")]), flavor="hive") if case["partitioning"] else None
    known = {"schema": on_wire} if kind == "csv" else {}
    expected = ds.dataset(theirs, format=kind, partitioning=folders, **known).to_table()
    assert_same_rows(ds.dataset(ours, format=kind, partitioning=folders, **known).to_table(), expected)
    arena.same(_read(arena, ours, kind, expected.schema, partitioning=folders), expected)


def _decoded(table: pa.Table) -> pa.Table:
    """A file of this format has one dictionary for a column, which tasks that write as they go do not know."""
    return pa.Table.from_batches([to_wire(batch) for batch in table.to_batches()], wire_schema(table.schema))


def _read(arena: Arena, folder: Path, kind: str, schema: pa.Schema, **more: Any) -> Dataset:
    if kind in ("csv", "json"):
        more["schema"] = schema
    dataset: Dataset = getattr(arena.session, f"read_{kind}")(folder, **more)
    return dataset


def _read_files(arena: Arena, case: dict[str, Any]) -> None:
    """Three files, which pyarrow has written; and of some columns the rows that pass a filter."""
    table, kind = case["table"].select(["a", "b", "i"]), case["format"]
    folder = arena.new_folder()
    folder.mkdir()
    for index in range(3):
        rows = table.slice(4 * index, 4 if index < 2 else None)
        if rows.num_rows or kind != "json":
            _WRITERS[kind](rows, folder / f"{index}.{kind}")
    dataset = _read(arena, folder, kind, table.schema)
    arena.same(dataset, table)
    assert dataset.count_rows() == table.num_rows
    some = (pc.field("i") > 2) & (pc.field("i") < 9)
    arena.same(dataset.filter(some).select(["i", "a"]), table.filter(some).select(["i", "a"]))


def _write_json(table: pa.Table, path: Path) -> None:
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in table.to_pylist()))


def _write_ipc(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def _write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=2)


_WRITERS: dict[str, Any] = {
    "parquet": _write_parquet,
    "ipc": _write_ipc,
    "csv": pa.csv.write_csv,
    "json": _write_json,
}
FILES = (
    *(
        Operation(
            name=f"write {kind}", methods=frozenset({"write_dataset", "repartition"}), cases=_cases(kind), check=_write
        )
        for kind in _FORMATS
    ),
    *(
        Operation(
            name=f"read {kind}",
            methods=frozenset({"filter", "select", "count_rows"}),
            cases=_cases(kind),
            check=_read_files,
        )
        for kind in _WRITERS
    ),
)
