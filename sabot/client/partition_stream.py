"""Reads a partition of a result whole, or batch by batch for readers that take their time.

A connection that a session has kept may have been cut meanwhile, and a stream whose reader is slow is cut, by its
deadline or by the agent, which keeps no connection that stands still. It is then opened again; what has been handed out
already is read over and held against what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa

from sabot.client.flight import sum_of
from sabot.errors import PeerLost

_SUM_MASK = 2**64 - 1
_READS_MAX = 4
"""Times that a stream is opened without a new row to show for it, where it breaks and does not time out."""


def read_whole(open_stream: Callable[[], Iterator[pa.RecordBatch]]) -> list[pa.RecordBatch]:
    """All batches of one stream."""
    reads = 0
    while True:
        try:
            return list(open_stream())
        except PeerLost as error:
            reads += 1
            if not _may_read_again(error, reads):
                raise


def stream_partition(open_stream: Callable[[], Iterator[pa.RecordBatch]], what: str) -> Iterator[pa.RecordBatch]:
    """The batches that `open_stream` gives, each row once; PeerLost when it breaks off and gives no new row."""
    handed = _HandedOut(what)
    reads = 0
    while True:
        before = handed.rows
        try:
            yield from handed.new_rows(open_stream())
            return
        except PeerLost as error:
            reads = 1 if handed.rows > before else reads + 1
            if handed.rows == before and not _may_read_again(error, reads):
                raise


def _may_read_again(error: PeerLost, reads: int) -> bool:
    return reads < _READS_MAX and not error.facts.keys() & {"deadline_s", "reordered"}


class _HandedOut:
    """How far a reader is: rows, and their content sum."""

    def __init__(self, what: str) -> None:
        self.rows = 0
        self._sum = 0
        self._what = what

    def new_rows(self, stream: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """What comes after the rows that have been handed out before."""
        left, left_sum = self.rows, self._sum
        for batch in stream:
            old = min(left, batch.num_rows)
            if old:
                left -= old
                left_sum = (left_sum - sum_of(batch.slice(0, old))) & _SUM_MASK
                if left == 0 and left_sum != 0:
                    raise PeerLost(
                        f"{self._what} was read again after its stream had broken, and its rows came in another order; "
                        "run the job again, or take it whole with to_table()",
                        reordered=True,
                    )
            if old < batch.num_rows:
                new = batch.slice(old)
                self.rows += new.num_rows
                self._sum = (self._sum + sum_of(new)) & _SUM_MASK
                yield new
