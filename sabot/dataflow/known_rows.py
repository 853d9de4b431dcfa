"""How many rows a plan gives, where that is known without running it: from files' footers and tables' lengths."""

from __future__ import annotations

from sabot.dataflow.persisted import PersistedNode
from sabot.dataflow.plan import (
    AggregateNode,
    HeadNode,
    Node,
    ProjectNode,
    RepartitionNode,
    ScanNode,
    SortNode,
    TableNode,
)
from sabot.dataflow.union import UnionNode


def known_rows(node: Node) -> int | None:  # noqa: PLR0911 - one per kind of node
    """The number of rows; None where rows must be looked at."""
    match node:
        case ScanNode(format="parquet", row_groups=None):
            return sum(sum(file.row_group_rows) for file in node.files)
        case TableNode():
            return int(node.table.num_rows)
        case PersistedNode():
            return node.rows
        case ProjectNode() | SortNode() | RepartitionNode():
            return known_rows(node.child)
        case HeadNode():
            rows = known_rows(node.child)
            return None if rows is None else min(rows, node.step.rows)
        case UnionNode():
            counts = [known_rows(part) for part in node.parts]
            return None if None in counts else sum(count for count in counts if count is not None)
        case AggregateNode() if not node.step.keys:
            return 1
        case _:
            return None
