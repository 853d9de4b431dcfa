"""One partition's join as an Acero plan, with pyarrow's names and order of columns.

Columns that Acero's join refuses (nested, null, views) are carried along by row index: the join gives pairs of row
indices, by which the columns are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import _acero as acero  # pyarrow.acero imports pyarrow.dataset: 16 MB, with pandas 50

from sabot.dataflow.columns import plain_schema
from sabot.dataflow.expressions import columns_used, table_source
from sabot.dataflow.join_types import JoinedColumn, joined_columns
from sabot.dataflow.stage import Join


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinPlan:
    """`declaration` may run on any number of threads; `finish` makes the step's answer of its table."""

    declaration: acero.Declaration
    finish: Callable[[pa.Table], pa.Table]


def join_plan(left: pa.Table, right: pa.Table, step: Join) -> JoinPlan:
    """For what `left.join(right, ...)` gives, in any order; null keys match nothing."""
    left, right = left.unify_dictionaries(), right.unify_dictionaries()
    columns = joined_columns(step, left.column_names, right.column_names)
    if _joins_by_value(left, step.keys) and _joins_by_value(right, step.right_keys):
        return JoinPlan(declaration=_join_values(left, right, step, columns), finish=_plain)
    pairs = _Pairs(left, right, step)
    return JoinPlan(declaration=pairs.declaration(), finish=lambda joined: _plain(pairs.take(joined, columns)))


def filter_columns(step: Join, left: pa.Schema, right: pa.Schema) -> frozenset[str]:
    """The columns of either side that the step's filter needs; those that both have it cannot name."""
    if step.filter_expression is None:
        return frozenset()
    return columns_used(
        step.filter_expression, pa.schema([*left, *(field for field in right if field.name not in left.names)])
    )


def _plain(table: pa.Table) -> pa.Table:
    return pa.Table.from_arrays(table.columns, schema=plain_schema(table.schema))


def _join_values(left: pa.Table, right: pa.Table, step: Join, columns: Sequence[JoinedColumn]) -> acero.Declaration:
    """The columns as Acero's join gives them. Where it gives both keys of a row, one of which may be missing, a
    projection makes one of them.
    """
    outputs = {}
    coalesces = any(column.left is not None and column.right is not None for column in columns)
    if step.coalesce_keys and not coalesces:
        outputs = {
            "left_output": [left.column_names[column.left] for column in columns if column.left is not None],
            "right_output": [right.column_names[column.right] for column in columns if column.right is not None],
        }
    options = acero.HashJoinNodeOptions(
        step.join_type,
        list(step.keys),
        list(step.right_keys),
        output_suffix_for_left=step.left_suffix or "",
        output_suffix_for_right=step.right_suffix or "",
        filter_expression=step.filter_expression,
        **outputs,
    )
    join = acero.Declaration("hashjoin", options, [table_source(left), table_source(right)])
    if not coalesces:
        return join
    values = [_value_of(column, right_from=left.num_columns) for column in columns]
    project = acero.ProjectNodeOptions(values, [column.name for column in columns])
    return acero.Declaration.from_sequence([join, acero.Declaration("project", project)])


def _value_of(column: JoinedColumn, *, right_from: int) -> pc.Expression:
    fields = [] if column.left is None else [pc.field(column.left)]
    fields += [] if column.right is None else [pc.field(right_from + column.right)]
    return fields[0] if len(fields) == 1 else pc.coalesce(*fields)


def _joins_by_value(table: pa.Table, keys: tuple[str, ...]) -> bool:
    """Whether Acero takes all columns; keys count as taken, since planning has checked them."""
    types = pa.types
    return not any(
        types.is_nested(field.type)
        or types.is_null(field.type)
        or types.is_string_view(field.type)
        or types.is_binary_view(field.type)
        or types.is_run_end_encoded(field.type)
        or isinstance(field.type, pa.BaseExtensionType)
        for field in table.schema
        if field.name not in keys
    )


class _Pairs:
    """The join of two tables as pairs of their row indices; an index is null where a row has no match."""

    def __init__(self, left: pa.Table, right: pa.Table, step: Join) -> None:
        self._left = left
        self._right = right
        self._step = step
        self._filtered = filter_columns(step, left.schema, right.schema)
        prefix = "row"
        while any(name.startswith(prefix) for name in self._filtered):
            prefix = f"_{prefix}"
        self._names = (f"{prefix} left", f"{prefix} right")

    def declaration(self) -> acero.Declaration:
        step = self._step
        left_index, right_index = self._names
        options = acero.HashJoinNodeOptions(
            step.join_type,
            [f"{left_index} {i}" for i in range(len(step.keys))],
            [f"{right_index} {i}" for i in range(len(step.keys))],
            left_output=[] if step.join_type in ("right semi", "right anti") else [left_index],
            right_output=[] if step.join_type in ("left semi", "left anti") else [right_index],
            filter_expression=step.filter_expression,
        )
        sides = [
            self._keys_and_index(self._left, step.keys, left_index),
            self._keys_and_index(self._right, step.right_keys, right_index),
        ]
        return acero.Declaration("hashjoin", options, [table_source(side) for side in sides])

    def _keys_and_index(self, table: pa.Table, keys: Sequence[str], index: str) -> pa.Table:
        columns = {f"{index} {i}": table[key] for i, key in enumerate(keys)}
        columns |= {name: table[name] for name in table.column_names if name in self._filtered}
        columns[index] = pa.arange(0, table.num_rows)
        return pa.table(columns)

    def take(self, pairs: pa.Table, columns: Sequence[JoinedColumn]) -> pa.Table:
        """The columns of the rows that the pairs name."""
        rows = [pairs[name].combine_chunks() if name in pairs.column_names else None for name in self._names]
        answer = []
        for column in columns:
            values = []
            if column.left is not None:
                values.append(taken(self._left.column(column.left), rows[0]))
            if column.right is not None:
                values.append(taken(self._right.column(column.right), rows[1]))
            answer.append(values[0] if len(values) == 1 else pc.coalesce(*values))
        return pa.Table.from_arrays(answer, names=[column.name for column in columns])


def taken(column: pa.ChunkedArray, rows: pa.Array) -> pa.ChunkedArray:
    """The values of these rows. Arrow takes no views: they are taken as what they are views of."""
    kind = column.type
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string()).take(rows).cast(kind)
    if pa.types.is_binary_view(kind):
        return column.cast(pa.large_binary()).take(rows).cast(kind)
    return column.take(rows)
