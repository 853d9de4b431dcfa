"""How large the rows of a plan may be, as far as that is known before it runs: what may be copied to every agent.

Rows are bounded from above, so that a join or a filter of unknown effect never looks smaller than it is. The width of a
row is a mean: of a column that is carried along its source's, of one that is computed its type's. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.expressions import columns_used
from sabot.dataflow.grouping import target_columns
from sabot.dataflow.join_types import joined_columns
from sabot.dataflow.persisted import PersistedNode
from sabot.dataflow.plan import (
    AggregateNode,
    FilterNode,
    HeadNode,
    JoinNode,
    Node,
    ProjectNode,
    RepartitionNode,
    ScanNode,
    SortNode,
    TableNode,
)
from sabot.dataflow.stage import Join
from sabot.dataflow.union import UnionNode

_OFFSET_BYTES = 4.0
_VALIDITY_BYTES = 1 / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """At most so many rows, and the mean bytes of each column's value in wire form."""

    rows: int
    widths: tuple[float, ...]

    @property
    def num_bytes(self) -> int:
        return int(self.rows * sum(self.widths))


def bytes_at_most(node: Node) -> int | None:
    """About the largest number of bytes that the node's rows may have; None where there is no telling."""
    size = size_of(node)
    return None if size is None else size.num_bytes


def size_of(node: Node) -> Size | None:  # noqa: PLR0911 - one per kind of node
    """What is known of the node's rows; None where there is no telling."""
    match node:
        case TableNode():
            return Size(rows=node.table.num_rows, widths=tuple(_mean_width(column) for column in node.table.columns))
        case ScanNode():
            return _size_of_scan(node)
        case PersistedNode():
            widths = [fixed_width(kind) for kind in node.schema.types]
            known = tuple(width for width in widths if width is not None)
            return Size(rows=node.rows, widths=known) if len(known) == len(widths) else None
        case FilterNode() | SortNode() | RepartitionNode():
            return size_of(node.child)
        case UnionNode():
            return _size_of_union([size_of(part) for part in node.parts])
        case ProjectNode():
            return _size_of_project(node)
        case HeadNode():
            size = size_of(node.child)
            return None if size is None else replace(size, rows=min(size.rows, node.step.rows))
        case AggregateNode():
            return _size_of_aggregate(node)
        case JoinNode():
            return _size_of_join(node)
        case _:  # a user's function, say
            return None


def fixed_width(kind: pa.DataType) -> float | None:
    """The bytes of a value of a type whose values are all equally long; None for other types."""
    if pa.types.is_null(kind):
        return 0.0
    try:
        return float(kind.bit_width) / 8 + _VALIDITY_BYTES
    except ValueError:
        return None


def _mean_width(column: pa.ChunkedArray) -> float:
    if pa.types.is_dictionary(column.type):  # decoded on the wire
        width = fixed_width(column.type.value_type)
        if width is None:
            values = sum(len(chunk.dictionary) for chunk in column.chunks)
            width = sum(chunk.dictionary.nbytes for chunk in column.chunks) / max(1, values) + _OFFSET_BYTES
        return width
    return float(column.nbytes) / max(1, len(column))


def _size_of_scan(node: ScanNode) -> Size | None:
    if node.format == "parquet":
        known = [node.column_widths.get(name) for name in node.schema.names]
        widths = tuple(width for width in known if width is not None)
        return Size(rows=_rows_left(node), widths=widths) if len(widths) == len(known) else None
    if node.format == "csv":  # a row has a byte for each of all columns, of which these are some
        num_bytes = sum(file.size_bytes for file in node.files)
        rows = num_bytes // max(1, len(node.schema))
        texts = num_bytes / max(1, rows) + _OFFSET_BYTES
        return Size(rows=rows, widths=tuple(_width_or(field.type, texts) for field in node.schema))
    return None


def row_bytes(node: ScanNode) -> float:
    """The mean bytes of a row of the columns read; 0 where there is no telling."""
    return sum(node.column_widths.get(name, 0.0) for name in node.schema.names)


def _rows_left(node: ScanNode) -> int:
    """Those of the row groups that a filter has not left out."""
    if node.row_groups is None:
        return sum(sum(file.row_group_rows) for file in node.files)
    pairs = zip(node.files, node.row_groups, strict=True)
    return sum(file.row_group_rows[group] for file, groups in pairs for group in groups)


def _width_or(kind: pa.DataType, otherwise: float) -> float:
    width = fixed_width(kind)
    return otherwise if width is None else width


def _size_of_union(parts: Sequence[Size | None]) -> Size | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    rows = sum(part.rows for part in known)
    columns = zip(*(part.widths for part in known), strict=True)
    widths = (
        sum(part.rows * width for part, width in zip(known, column, strict=True)) / max(1, rows) for column in columns
    )
    return Size(rows=rows, widths=tuple(widths))


def _size_of_project(node: ProjectNode) -> Size | None:
    size = size_of(node.child)
    if size is None:
        return None
    widths: list[float] = []
    for field, expression in zip(node.schema, node.expressions, strict=True):
        width = _width_of_value(field.type, expression, node.child.schema, size.widths)
        if width is None:
            return None
        widths.append(width)
    return replace(size, widths=tuple(widths))


def _width_of_value(
    kind: pa.DataType, expression: pc.Expression, schema: pa.Schema, widths: Sequence[float]
) -> float | None:
    """Of a column its own, of a text that is made of others the sum of theirs; None where neither is known."""
    given: dict[str, float] = dict(zip(schema.names, widths, strict=True))
    if expression.equals(pc.field(str(expression))):
        return float(given[str(expression)])
    width = None if pa.types.is_dictionary(kind) else fixed_width(kind)
    if width is None:
        used = columns_used(expression, schema)
        width = sum(given[name] for name in used) if used else None
    return width


def _size_of_aggregate(node: AggregateNode) -> Size | None:
    """Never more rows than there were; a list of values has the bytes of all of them."""
    size = size_of(node.child)
    if size is None:
        return None
    given = dict(zip(node.child.schema.names, size.widths, strict=True))
    keys = [given[key] for key in node.step.keys]
    values = [
        _width_or(field.type, sum(given[name] for name in target_columns(aggregation[0])) + _OFFSET_BYTES)
        for field, aggregation in zip(list(node.schema)[len(keys) :], node.step.aggregations, strict=True)
    ]
    return Size(rows=size.rows if keys else 1, widths=(*keys, *values))


def _size_of_join(node: JoinNode) -> Size | None:
    left, right = size_of(node.left), size_of(node.right)
    if left is None or right is None:
        return None
    widths = []
    for column in joined_columns(node.step, node.left.schema.names, node.right.schema.names):
        sides = [left.widths[column.left]] if column.left is not None else []
        sides += [right.widths[column.right]] if column.right is not None else []
        widths.append(max(sides))
    return Size(rows=_rows_joined(node.step, left.rows, right.rows), widths=tuple(widths))


def _rows_joined(step: Join, left: int, right: int) -> int:
    """Every row may match every one of the other side: only where both are small is the answer known to be."""
    match step.join_type:
        case "left semi" | "left anti":
            return left
        case "right semi" | "right anti":
            return right
        case "left outer":
            return left * max(1, right)
        case "right outer":
            return right * max(1, left)
        case "full outer":
            return left * right + left + right
    return left * right
