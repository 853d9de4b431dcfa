"""Leaving out columns that nobody asks for: at the scan where that is possible, otherwise before the next shuffle.

A user's function sees all the columns that it would see without this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.expressions import columns_used
from sabot.dataflow.function_nodes import MapBatchesNode, MapPartitionsNode
from sabot.dataflow.grouping import target_columns
from sabot.dataflow.join_types import gives_both_sides, joined_columns
from sabot.dataflow.joining import filter_columns
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
)
from sabot.dataflow.sampling import DrawNode
from sabot.dataflow.union import UnionNode

Names = frozenset[str]


def pruned(node: Node, needed: Names | None = None) -> Node:  # noqa: PLR0911, PLR0912 - one per kind of node
    """The node giving at least the columns `needed` (None: all) in their old order, and few others."""
    if needed is not None and _has_repeated_names(node.schema):
        needed = None
    match node:
        case ScanNode():
            return node if needed is None else _narrow_scan(node, needed)
        case FilterNode():
            used = None if needed is None else needed | columns_used(node.expression, node.child.schema)
            return replace(node, child=pruned(node.child, used))
        case ProjectNode():
            return _narrow_project(node, needed)
        case MapBatchesNode() | MapPartitionsNode():
            # Its schema, once learnt, is declared, so that no pass calls the user's function again.
            return replace(node, child=pruned(node.child), declared=node.schema)
        case JoinNode():
            left, right = _needed_of_join(node, needed)
            return replace(node, left=_exactly(node.left, left), right=_exactly(node.right, right))
        case AggregateNode():
            targets = (name for target, *_ in node.step.aggregations for name in target_columns(target))
            return replace(node, child=_exactly(node.child, frozenset([*node.step.keys, *targets])))
        case SortNode():
            return replace(node, child=_exactly(node.child, _with(needed, (key[0] for key in node.step.sorting))))
        case RepartitionNode():
            return replace(node, child=_exactly(node.child, _with(needed, node.keys)))
        case UnionNode():
            return replace(node, parts=tuple(_exactly(part, needed) for part in node.parts))
        case DrawNode():
            return replace(node, child=pruned(node.child, needed and needed - {node.step.name}))
        case HeadNode():
            return replace(node, child=_exactly(node.child, needed))
        case _:
            return node


def _with(needed: Names | None, names: Iterable[str]) -> Names | None:
    return None if needed is None else needed | frozenset(names)


def _has_repeated_names(schema: pa.Schema) -> bool:
    return len(set(schema.names)) < len(schema.names)


def _kept(schema: pa.Schema, needed: Names) -> list[str]:
    """The needed columns in order; where none is, the narrowest, since rows must be counted by something."""
    names = [name for name in schema.names if name in needed]
    return names or [min(schema, key=lambda field: _width_bits(field.type)).name]


def _width_bits(kind: pa.DataType) -> int:
    try:
        return int(kind.bit_width)
    except ValueError:
        return 1 << 16


def _narrow_scan(node: ScanNode, needed: Names) -> ScanNode:
    names = _kept(node.schema, needed)
    if len(names) == len(node.schema.names):
        return node
    return replace(node, columns=tuple(names), file_schema=pa.schema([node.file_schema.field(name) for name in names]))


def _narrow_project(node: ProjectNode, needed: Names | None) -> Node:
    kept = set(node.schema.names) if needed is None else set(_kept(node.schema, needed))
    pairs = [pair for pair in zip(node.names, node.expressions, strict=True) if pair[0] in kept]
    used: Names = frozenset().union(*(columns_used(expression, node.child.schema) for _, expression in pairs))
    child = pruned(node.child, used)
    names = [name for name, _ in pairs]
    if child.schema.names == names and all(expression.equals(pc.field(name)) for name, expression in pairs):
        return child
    return replace(node, child=child, names=tuple(names), expressions=tuple(expression for _, expression in pairs))


def _exactly(node: Node, needed: Names | None) -> Node:
    """The node giving the columns needed and no others: for what crosses a shuffle."""
    if needed is None or _has_repeated_names(node.schema):
        return pruned(node)
    child = pruned(node, needed)
    names = _kept(node.schema, needed)
    if len(names) == len(child.schema.names):
        return child
    return ProjectNode(child=child, names=tuple(names), expressions=tuple(pc.field(name) for name in names))


def _needed_of_join(node: JoinNode, needed: Names | None) -> tuple[Names | None, Names | None]:
    """The columns needed of each side. A name on both sides stays on both or neither: suffixes depend on it."""
    left, right = list(node.left.schema.names), list(node.right.schema.names)
    if _has_repeated_names(node.left.schema) or _has_repeated_names(node.right.schema):
        return None, None
    step = node.step
    filtered = filter_columns(step, node.left.schema, node.right.schema)
    wanted_left, wanted_right = {*step.keys, *(filtered & set(left))}, {*step.right_keys, *(filtered & set(right))}
    for column in joined_columns(step, left, right):
        if needed is None or column.name in needed:
            wanted_left |= {left[column.left]} if column.left is not None else set()
            wanted_right |= {right[column.right]} if column.right is not None else set()
    both = set(left) & set(right) & (wanted_left | wanted_right) if gives_both_sides(step) else set()
    return frozenset(wanted_left | both), frozenset(wanted_right | both)
