"""What `pyarrow.Table.join` would give if it took columns of every type.

Columns that it refuses are replaced by row numbers of a type that tells one from the other, and taken by them after it.
"""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import strategies as st

from sabot.dataflow.stage import JoinType

JOIN_TYPES: tuple[str, ...] = get_args(JoinType)


def join_options() -> st.SearchStrategy[dict[str, Any]]:
    """Arguments for a join of `tests.dataflow.tables.join_sides`."""
    return st.fixed_dictionaries(
        {
            "keys": st.sampled_from(["k", ["k", "h"]]),
            "join_type": st.sampled_from(JOIN_TYPES),
            "coalesce_keys": st.booleans(),
            "filter_expression": st.sampled_from(
                [None, pc.field("i") <= pc.field("j"), pc.is_null(pc.field("j")) | (pc.field("i") > 3)]
            ),
        },
        optional={"left_suffix": st.just("_l"), "right_suffix": st.just("_r")},
    )


def pyarrow_join(left: pa.Table, right: pa.Table, *arguments: Any, **options: Any) -> pa.Table:
    """`left.join(right, ...)`."""
    sources: dict[pa.DataType, pa.ChunkedArray] = {}
    stand_ins = [_with_row_numbers(table, sources) for table in (left, right)]
    joined = stand_ins[0].join(stand_ins[1], *arguments, **options, use_threads=False)
    columns = [
        _values_of(sources[column.type], column) if column.type in sources else column for column in joined.columns
    ]
    return pa.Table.from_arrays(columns, names=joined.column_names)


def _values_of(source: pa.ChunkedArray, rows: pa.ChunkedArray) -> pa.ChunkedArray:
    values = source.to_pylist()
    taken = [None if row is None else values[int(row)] for row in rows.to_pylist()]
    return pa.chunked_array([pa.array(taken, source.type)])


def _with_row_numbers(table: pa.Table, sources: dict[pa.DataType, pa.ChunkedArray]) -> pa.Table:
    columns = []
    for column in table.columns:
        if _taken(column.type):
            columns.append(column)
            continue
        stand_in = pa.decimal128(19 + len(sources), 0)
        sources[stand_in] = column
        columns.append(pa.chunked_array([pa.array(range(len(column)), stand_in)]))
    return pa.Table.from_arrays(columns, names=table.column_names)


@cache
def _taken(kind: pa.DataType) -> bool:
    rows = pa.table({"k": pa.array([1]), "v": pa.nulls(1, kind)})
    try:
        rows.join(rows.select(["k"]), "k")
    except pa.ArrowInvalid:
        return False
    return True
