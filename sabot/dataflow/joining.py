"""One partition's join as an Acero plan, with pyarrow's names and order of columns.

Columns that Acero's join refuses (nested, null, views) are carried along by row index: the join gives pairs of row
indices, by which the columns are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import acero

from sabot.dataflow.columns import plain_schema
from sabot.dataflow.expressions import table_source
from sabot.dataflow.stage import Join


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinPlan:
    """`declaration` may run on any number of threads; `finish` makes the step's answer of its table."""

    declaration: acero.Declaration
    finish: Callable[[pa.Table], pa.Table]


def join_plan(left: pa.Table, right: pa.Table, step: Join) -> JoinPlan:
    """For what `left.join(right, ...)` gives, in any order; null keys match nothing."""
    left, right = left.unify_dictionaries(), right.unify_dictionaries()
    if all(_joins_by_value(left, step.keys)) and all(_joins_by_value(right, step.right_keys)):
        return JoinPlan(declaration=_join(left, right, step), finish=_plain)
    pairs = Join(
        keys=tuple(f"left {i}" for i in range(len(step.keys))),
        right_keys=tuple(f"right {i}" for i in range(len(step.keys))),
        join_type=step.join_type,
        coalesce_keys=False,
    )
    return JoinPlan(
        declaration=_join(
            _keys_and_index(left, step.keys, "left"), _keys_and_index(right, step.right_keys, "right"), pairs
        ),
        finish=lambda joined: _plain(_take_pairs(left, right, joined, step)),
    )


def _plain(table: pa.Table) -> pa.Table:
    return pa.Table.from_arrays(table.columns, schema=plain_schema(table.schema))


def _join(left: pa.Table, right: pa.Table, step: Join) -> acero.Declaration:
    """Null keys match nothing. Coalesced right keys are the left ones, or the nulls of a row without a match."""
    kept = {}
    if step.coalesce_keys:
        kept = {
            "left_output": left.column_names,
            "right_output": [name for name in right.column_names if name not in step.right_keys],
        }
    options = acero.HashJoinNodeOptions(
        step.join_type,
        list(step.keys),
        list(step.right_keys),
        output_suffix_for_left=step.left_suffix or "",
        output_suffix_for_right=step.right_suffix or "",
        **kept,
    )
    return acero.Declaration("hashjoin", options, [table_source(left), table_source(right)])


def _joins_by_value(table: pa.Table, keys: tuple[str, ...]) -> list[bool]:
    """Per column, whether Acero takes it; keys count as taken, since planning has checked them."""
    types = pa.types
    return [
        field.name in keys
        or not (
            types.is_nested(field.type)
            or types.is_null(field.type)
            or types.is_string_view(field.type)
            or types.is_binary_view(field.type)
            or types.is_run_end_encoded(field.type)
            or isinstance(field.type, pa.BaseExtensionType)
        )
        for field in table.schema
    ]


def _keys_and_index(table: pa.Table, keys: tuple[str, ...], side: str) -> pa.Table:
    columns = [table[key] for key in keys]
    index = pa.array(range(table.num_rows), pa.int64())
    return pa.table([*columns, index], names=[*(f"{side} {i}" for i in range(len(keys))), f"{side} index"])


def _take_pairs(left: pa.Table, right: pa.Table, pairs: pa.Table, step: Join) -> pa.Table:
    left_rows = left.take(pairs["left index"])
    right_rows = right.take(pairs["right index"])
    if step.coalesce_keys:
        right_rows = right_rows.select([i for i, name in enumerate(right.column_names) if name not in step.right_keys])
    return pa.Table.from_arrays([*left_rows.columns, *right_rows.columns], names=_joined_names(left, right, step))


def _joined_names(left: pa.Table, right: pa.Table, step: Join) -> list[str]:
    """The result's names as Acero makes them, asked of tables without rows and of harmless types."""
    stand_ins = [
        pa.schema([pa.field(name, pa.int8()) for name in table.column_names]).empty_table() for table in (left, right)
    ]
    names: list[str] = _join(stand_ins[0], stand_ins[1], step).to_table(use_threads=False).column_names
    return names
