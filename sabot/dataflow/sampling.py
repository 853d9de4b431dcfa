"""A random number for each row, by which samples are taken: the same for the same row of the same task, run by run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.plan import FilterNode, HeadNode, Node, ProjectNode, SortNode
from sabot.dataflow.stage import Draw, Head, Sort
from sabot.errors import UsageError

_BLOCK_ROWS = 65_536


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawNode(Node):
    """The child's columns and one more, last: a number from [0, 1) for each row."""

    child: Node
    step: Draw

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.child,)

    def _learn_schema(self) -> pa.Schema:
        return self.child.schema.append(pa.field(self.step.name, pa.float64()))


class Draws:
    """The numbers of one task's rows, in the rows' order, however the rows are cut into batches."""

    def __init__(self, step: Draw, task: int) -> None:
        self._seed = f"{step.seed}/{task}"
        self._row = 0
        self._block: tuple[int, pa.Array] | None = None

    def next(self, rows: int) -> pa.ChunkedArray:
        """Those of the `rows` rows that follow."""
        found: list[pa.Array] = []
        while rows:
            block, start = divmod(self._row, _BLOCK_ROWS)
            found.append(self._numbers(block).slice(start, rows))
            rows -= len(found[-1])
            self._row += len(found[-1])
        return pa.chunked_array(found, pa.float64())

    def _numbers(self, block: int) -> pa.Array:
        if self._block is None or self._block[0] != block:
            seed = hashlib.blake2b(f"{self._seed}/{block}".encode(), digest_size=8).digest()
            self._block = (block, pc.random(_BLOCK_ROWS, initializer=int.from_bytes(seed) >> 1))
        return self._block[1]

    def add_to(self, table: pa.Table, name: str) -> pa.Table:
        """The table, whose rows are the next ones, with their numbers as its last column."""
        return table.append_column(name, self.next(table.num_rows))


def sample_node(rows: Node, fraction: float | None, num_rows: int | None, seed: int | None) -> Node:
    """Each row with probability `fraction`, or `num_rows` rows, all as likely. Without a seed one is drawn."""
    if (fraction is None) == (num_rows is None):
        raise UsageError("sample: takes a fraction of the rows or num_rows=, one of them")
    names = rows.schema.names
    drawn = "draw"
    while drawn in names:
        drawn += "_"
    if seed is None:
        seed = int(pc.random(1)[0].as_py() * 2**53)
    node: Node = DrawNode(child=rows, step=Draw(name=drawn, seed=seed))
    if fraction is not None:
        if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            raise UsageError(f"sample: fraction is a number from 0 to 1, not {fraction!r}")
        node = FilterNode(child=node, expression=pc.field(drawn) < float(fraction))
    else:
        if isinstance(num_rows, bool) or not isinstance(num_rows, int) or num_rows < 0:
            raise UsageError(f"sample: num_rows is a number from 0 on, not {num_rows!r}")
        ordered = SortNode(child=node, step=Sort(sorting=((drawn, "ascending"),)))
        node = HeadNode(child=ordered, step=Head(rows=num_rows))
    return ProjectNode(child=node, names=tuple(names), expressions=tuple(map(pc.field, names)), what="sample")
