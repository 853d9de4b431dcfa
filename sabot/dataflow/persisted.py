"""A dataset that has been computed and stays with the agents: later jobs read its partitions where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from sabot.dataflow.columns import plain_schema
from sabot.dataflow.plan import Node
from sabot.dataflow.session_protocol import ResultProtocol
from sabot.dataflow.stage import TablePiece


@dataclass(frozen=True, kw_only=True, eq=False)
class PersistedNode(Node):
    """The rows of an earlier job's result, which is freed when nobody holds it any more."""

    table_id: str
    result: ResultProtocol
    result_schema: pa.Schema
    rows: int

    def _learn_schema(self) -> pa.Schema:
        return plain_schema(self.result_schema)


def persisted_pieces(root: Node) -> dict[str, tuple[TablePiece, ...]]:
    """Where the persisted datasets lie that the plan reads, by their ids; UsageError where one has been closed."""
    found = {root.table_id: root.result.pieces()} if isinstance(root, PersistedNode) else {}
    for node in root.inputs:
        found.update(persisted_pieces(node))
    return found
