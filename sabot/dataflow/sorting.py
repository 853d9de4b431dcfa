"""Which sorts are done by ranges over all agents, and which by one task that is given all rows."""

from __future__ import annotations

import pyarrow as pa

from sabot.dataflow.estimates import fixed_width
from sabot.dataflow.function_nodes import MapBatchesNode, MapPartitionsNode
from sabot.dataflow.persisted import PersistedNode
from sabot.dataflow.plan import JoinNode, Node, ScanNode, SortNode, TableNode
from sabot.dataflow.ranges import SortKey
from sabot.dataflow.wire_form import wire_schema

SORTED_BY_ONE_BYTES_MAX = 4 << 20
"""What one task sorts before another agent has been asked."""
_TEXT_BYTES = 16.0  # of a text, where nothing is known of it


def range_sorting(node: SortNode) -> tuple[SortKey, ...] | None:
    """The keys by which ranges are cut, each column once; None where one task is to put all in order: the rows are few,
    or a key is of a type that has no ranges.
    """
    if _bytes_read_max(node.child) <= SORTED_BY_ONE_BYTES_MAX:
        return None
    first: dict[str, SortKey] = {}
    for key in node.step.sorting:
        first.setdefault(key[0], key)
    on_wire = wire_schema(node.child.schema)
    return tuple(first.values()) if all(has_ranges(on_wire.field(name).type) for name in first) else None


def has_ranges(kind: pa.DataType) -> bool:
    """Whether rows can be placed by ranges of such values, which pyarrow sorts as well."""
    types = pa.types
    fixed = (types.is_boolean, types.is_integer, types.is_float32, types.is_float64, types.is_decimal, types.is_null)
    texts = (
        types.is_string,
        types.is_large_string,
        types.is_binary,
        types.is_large_binary,
        types.is_fixed_size_binary,
    )
    moments = (types.is_date, types.is_time, types.is_timestamp, types.is_duration)
    return any(is_one(kind) for is_one in (*fixed, *texts, *moments))


def _bytes_read_max(node: Node) -> float:
    """About how much the node gives at most: what is read of files and tables, where no row can become several."""
    match node:
        case ScanNode(format="parquet"):
            return sum(sum(file.row_group_bytes) for file in node.files)
        case ScanNode():
            return sum(file.size_bytes for file in node.files)
        case TableNode():
            return int(node.table.nbytes)
        case PersistedNode():
            return node.rows * sum(fixed_width(kind) or _TEXT_BYTES for kind in node.schema.types)
        case MapBatchesNode() | MapPartitionsNode() | JoinNode():
            return float("inf")
    return sum(_bytes_read_max(source) for source in node.inputs)
