"""One partition's join through Acero, with pyarrow's names and order of columns.

Columns that Acero's join refuses (nested, null, views) are carried along by row index: the join gives pairs of row
indices, by which the columns are taken.
"""

from __future__ import annotations

import pyarrow as pa

from sabot.dataflow.stage import Join


def join_tables(left: pa.Table, right: pa.Table, step: Join) -> pa.Table:
    """What `left.join(right, ...)` gives, in the calling thread; null keys match nothing."""
    left, right = left.unify_dictionaries(), right.unify_dictionaries()
    if all(_carried(left, step.keys)) and all(_carried(right, step.right_keys)):
        return _acero_join(left, right, step)
    return _join_by_index(left, right, step)


def _acero_join(left: pa.Table, right: pa.Table, step: Join) -> pa.Table:
    return left.join(
        right,
        list(step.keys),
        list(step.right_keys),
        join_type=step.join_type,
        left_suffix=step.left_suffix,
        right_suffix=step.right_suffix,
        coalesce_keys=step.coalesce_keys,
        use_threads=False,
    )


def _carried(table: pa.Table, keys: tuple[str, ...]) -> list[bool]:
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


def _join_by_index(left: pa.Table, right: pa.Table, step: Join) -> pa.Table:
    pairs = _keys_and_index(left, step.keys, "left").join(
        _keys_and_index(right, step.right_keys, "right"),
        [f"left {i}" for i in range(len(step.keys))],
        [f"right {i}" for i in range(len(step.keys))],
        join_type=step.join_type,
        use_threads=False,
    )
    left_rows = left.take(pairs["left index"])
    right_rows = right.take(pairs["right index"])
    if step.coalesce_keys:
        # As pyarrow does for inner and left outer joins: the right keys are the left ones, or null rows' nulls.
        right_rows = right_rows.select([i for i, name in enumerate(right.column_names) if name not in step.right_keys])
    return pa.Table.from_arrays([*left_rows.columns, *right_rows.columns], names=_joined_names(left, right, step))


def _keys_and_index(table: pa.Table, keys: tuple[str, ...], side: str) -> pa.Table:
    columns = [table[key] for key in keys]
    index = pa.array(range(table.num_rows), pa.int64())
    return pa.table([*columns, index], names=[*(f"{side} {i}" for i in range(len(keys))), f"{side} index"])


def _joined_names(left: pa.Table, right: pa.Table, step: Join) -> list[str]:
    """pyarrow's names for the result, asked of tables without rows and of harmless types."""
    stand_ins = [
        pa.schema([pa.field(name, pa.int8()) for name in table.column_names]).empty_table() for table in (left, right)
    ]
    names: list[str] = _acero_join(stand_ins[0], stand_ins[1], step).column_names
    return names
