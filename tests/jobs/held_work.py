"""What held jobs do with their rows, and whether the answer is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from sabot.client.result import Result
from sabot.client.session import Session
from sabot.dataflow.dataset import Dataset

from .held_job import held_table

_NAMES = pa.table({"k": range(997), "name": [f"name {number}" for number in range(997)]})
_ORDER = [("k", "descending"), ("v", "ascending")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`of` the rows of `held_table` gives the rows of `expected`: in this order where they are `ordered`."""

    name: str
    of: Callable[[Session, Dataset], Dataset]
    expected: Callable[[pa.Table], pa.Table]
    ordered: bool = False

    def check(self, result: Result) -> None:
        """Fails unless the answer is exact, and audited so."""
        expected = self.expected(held_table())
        answer = result.to_table().select(expected.column_names).cast(expected.schema)
        if not self.ordered:
            order = [(name, "ascending") for name in expected.column_names]
            answer, expected = answer.sort_by(order), expected.sort_by(order)
        assert answer.equals(expected)
        assert result.receipt.exact, str(result.receipt)


def _joined(session: Session, rows: Dataset) -> Dataset:
    joined = rows.join(session.from_table(_NAMES), "k", join_type="inner")
    assert "broadcast, a copy for every agent" in joined.explain()
    return joined


GROUPING = Work(
    name="grouping",
    of=lambda _, rows: rows.group_by("k").aggregate([("v", "sum"), ("v", "count")]),
    expected=lambda table: table.group_by("k").aggregate([("v", "sum"), ("v", "count")]),
)
SORT = Work(
    name="sort", of=lambda _, rows: rows.sort_by(_ORDER), expected=lambda table: table.sort_by(_ORDER), ordered=True
)
BROADCAST_JOIN = Work(
    name="broadcast join", of=_joined, expected=lambda table: table.join(_NAMES, "k", join_type="inner")
)
