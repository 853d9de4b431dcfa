"""The inner join by one whole number or moment, by our own index of one side's rows in place of Acero's hash join."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from sabot.dataflow.columns import plain_schema
from sabot.dataflow.join_types import LEFT, RIGHT, joined_columns
from sabot.dataflow.stage import Join
from sabot.native._native import KeyIndex

INDEXED_ROWS_MAX = 4_000_000
"""Of a larger side Acero's join makes its hash table in short tasks, where an index is made in one."""
PROBED_ROWS = 262_144
"""Rows of the other side that are joined in one call: some milliseconds."""


class KeyJoin:
    """An index of the rows of one side, with which rows of the other are joined; any number of threads may do so."""

    def __init__(self, step: Join, indexed: pa.Table, side: int, index: KeyIndex) -> None:
        self.side = side
        self._step = step
        self._indexed = indexed
        self._index = index

    def join(self, rows: pa.Table) -> pa.Table:
        """The join with `rows` of the other side, in their order."""
        keys = self._step.right_keys if self.side == LEFT else self._step.keys
        probing, indexed = self._index.match(rows[keys[0]])
        rows = rows if probing is None else rows.unify_dictionaries().combine_chunks()
        left, right = (self._indexed, rows) if self.side == LEFT else (rows, self._indexed)
        places = (indexed, probing) if self.side == LEFT else (probing, indexed)
        columns = joined_columns(self._step, left.column_names, right.column_names)
        taken = [
            _taken(left.column(column.left), places[LEFT])
            if column.left is not None
            else _taken(right.column(column.right), places[RIGHT])
            for column in columns
        ]
        table = pa.Table.from_arrays(taken, names=[column.name for column in columns])
        return pa.Table.from_arrays(table.columns, schema=plain_schema(table.schema))

    def pieces(self, rows: pa.Table) -> Iterator[pa.Table]:
        """`rows` in as many parts as are to be joined one by one; one, without rows, at least."""
        for start in range(0, max(1, rows.num_rows), PROBED_ROWS):
            yield rows.slice(start, PROBED_ROWS)


def key_join(step: Join, sides: Sequence[pa.Table], side: int | None = None) -> KeyJoin | None:
    """Indexes `side` of the two, or the smaller one; None where the join is left to Acero: by other keys,
    of other types, with many rows of one key, or where both sides are large.
    """
    if not _is_ours(step, *(table.schema for table in sides)):
        return None
    if side is None:
        side = LEFT if sides[LEFT].num_rows < sides[RIGHT].num_rows else RIGHT
    if sides[side].num_rows > INDEXED_ROWS_MAX:
        return None
    key = (step.keys, step.right_keys)[side][0]
    table = sides[side].unify_dictionaries()
    if table[key].null_count:
        table = table.filter(table[key].is_valid())  # a null matches nothing
    table = table.combine_chunks()
    index = KeyIndex.make(table[key])
    return None if index is None else KeyJoin(step, table, side, index)


def _is_ours(step: Join, left: pa.Schema, right: pa.Schema) -> bool:
    if step.join_type != "inner" or len(step.keys) != 1 or step.filter_expression is not None:
        return False
    if any(_is_view(kind) for kind in (*left.types, *right.types)):
        return False
    return bool(left.field(step.keys[0]).type == right.field(step.right_keys[0]).type)


def _is_view(kind: pa.DataType) -> bool:
    """Arrow takes no rows of these."""
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def _taken(column: pa.ChunkedArray, places: pa.Array | None) -> pa.ChunkedArray:
    return column if places is None else column.take(places)
