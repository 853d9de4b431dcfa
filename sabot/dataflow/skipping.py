"""Files and row groups that a filter excludes are not read: by the values in their paths, and by Parquet's statistics.

The filter stays where it is, so that what is skipped changes no answer. Which row groups are left is asked of the
session, since it needs the files' footers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import reduce
from operator import and_
from typing import Any

import pyarrow.compute as pc

from sabot.dataflow.expressions import columns_used
from sabot.dataflow.function_nodes import MapBatchesNode
from sabot.dataflow.plan import FilterNode, Node, ProjectNode, RepartitionNode, ScanNode, SortNode
from sabot.dataflow.stage import ScanTotals
from sabot.dataflow.union import UnionNode

Filters = tuple[pc.Expression, ...]


def without_excluded(node: Node, filters: Filters = ()) -> Node:
    """The node with scans that leave out what no row of can pass `filters`, which are over the node's columns."""
    match node:
        case ScanNode():
            return _narrowed(node, filters)
        case FilterNode():
            below = (*filters, node.expression)
        case ProjectNode():
            below = tuple(expression for expression in filters if _is_about_the_same_columns(expression, node))
        case SortNode() | RepartitionNode() | UnionNode():
            below = filters
        case _:
            below = ()
    changes = {name: new for name, old in _inputs_of(node).items() if (new := _through(old, below)) is not old}
    if not changes:
        return node
    if isinstance(node, MapBatchesNode):
        changes["declared"] = node.schema  # so that the user's function is not called again to learn it
    return replace(node, **changes)


def _inputs_of(node: Node) -> dict[str, Any]:
    """By field: a node, or several."""
    found = {}
    for item in fields(node):
        value = getattr(node, item.name)
        if isinstance(value, Node) or (isinstance(value, tuple) and value and isinstance(value[0], Node)):
            found[item.name] = value
    return found


def _through(value: Node | tuple[Node, ...], filters: Filters) -> Node | tuple[Node, ...]:
    if isinstance(value, Node):
        return without_excluded(value, filters)
    changed = tuple(without_excluded(node, filters) for node in value)
    return changed if any(new is not old for new, old in zip(changed, value, strict=True)) else value


def _is_about_the_same_columns(expression: pc.Expression, node: ProjectNode) -> bool:
    """Whether all columns of the filter come through the projection unchanged and under their own names."""
    if len(set(node.names)) < len(node.names):
        return False
    used = columns_used(expression, node.schema)
    unchanged = {name for name, value in zip(node.names, node.expressions, strict=True) if value.equals(pc.field(name))}
    return used <= unchanged


def _narrowed(node: ScanNode, filters: Filters) -> ScanNode:
    if not filters or node.left is None or node.totals is not None or _has_repeated_names(node):
        return node
    left = node.left(reduce(and_, filters))
    kept = [(file, groups) for file, groups in zip(node.files, left, strict=True) if groups is None or groups]
    groups_left: Sequence[Sequence[int]] = [
        range(file.num_row_groups) if groups is None else groups for file, groups in kept
    ]
    totals = ScanTotals(files=len(node.files), row_groups=sum(file.num_row_groups for file in node.files))
    if len(kept) == totals.files and sum(map(len, groups_left)) == totals.row_groups:
        return node
    return replace(
        node,
        files=tuple(file for file, _ in kept),
        row_groups=tuple(tuple(groups) for groups in groups_left),
        totals=totals,
    )


def _has_repeated_names(node: ScanNode) -> bool:
    return len(set(node.schema.names)) < len(node.schema.names)
