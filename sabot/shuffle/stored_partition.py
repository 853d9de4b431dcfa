"""A partition that is being read piece by piece, so that one larger than memory can be worked on."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from sabot.native._native import NativePartition

Place = tuple[int, int]
"""A task, and which of its chunks."""


class StoredPartition:
    """The rows of one partition, audited as they are read, once; what is on disk is loaded as reading goes on.

    `rows`, `content_sum`, `num_bytes` and `network_rows` are of what has been read so far.
    """

    def __init__(self, native: NativePartition) -> None:
        self._native = native

    @property
    def schema(self) -> pa.Schema:
        """The rows' schema; no columns where no sender had rows or a schema."""
        return self._native.schema or pa.schema([])

    @property
    def rows(self) -> int:
        return self._native.rows

    @property
    def content_sum(self) -> int:
        return self._native.content_sum

    @property
    def num_bytes(self) -> int:
        return self._native.num_bytes

    @property
    def network_rows(self) -> int:
        """How many of the rows came from other agents."""
        return self._native.network_rows

    def pieces(self, timeout_s: float) -> Iterator[list[pa.RecordBatch]]:
        """Batches, about as many at a time as may be loaded; each time slots are waited for up to `timeout_s`.

        ShuffleIntegrityError before the last of them where the whole is not what its senders sent.
        """
        while batches := self._native.next(timeout_s):
            yield batches
            del batches

    def placed_pieces(self, timeout_s: float) -> Iterator[tuple[Place, pa.RecordBatch]]:
        """As `pieces`, each with its place: the rows are in order by places, and of one place as they come."""
        while pieces := self._native.next_placed(timeout_s):
            pieces.reverse()
            while pieces:
                task, sequence, batch = pieces.pop()
                yield (task, sequence), batch
                del batch

    def arrange(self) -> bool:
        """Has the pieces come in the order of `all`, if called before them; False where they cannot."""
        return self._native.arrange()

    def all(self, timeout_s: float) -> pa.Table:
        """All rows, in the order of the tasks that sent them and as each of them did, wherever they lay meanwhile."""
        return pa.Table.from_batches(self._native.read_all(timeout_s), self.schema)

    def stream(self, timeout_s: float) -> pa.RecordBatchReader:
        """The batches as a reader. The first pieces are read at once, so that a small partition that is wrong raises
        here."""
        first = self._native.next(timeout_s)

        def batches() -> Iterator[pa.RecordBatch]:
            ahead = bool(first)
            while first:
                yield first.pop(0)  # not kept while the rest is read
            if ahead:
                for more in self.pieces(timeout_s):
                    yield from more

        schema = first[0].schema if first else self.schema
        return pa.RecordBatchReader.from_batches(schema, batches())
