"""Morsels: zero-copy pieces of work, where they came from, and what became of them.

Also how a batch is cut into morsels of so many bytes. Nothing here runs anything.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

from sabot.errors import UsageError
from sabot.native._native import MorselResult, MorselRun
from sabot.native.morsel_source import MorselSource

__all__ = ["Morsel", "MorselBytes", "MorselResult", "MorselSource"]

MorselBytes = int | Literal["auto"]


class Morsel:
    """Rows `start_row` up to `start_row + num_rows` of `batch`; without `num_rows`, up to its end.

    Every attribute may be set until the morsel is given to the slots. The rows are not copied.
    """

    __slots__ = ("_num_rows", "batch", "partition_id", "source", "start_row")

    def __init__(
        self,
        batch: pa.RecordBatch | None = None,
        start_row: int = 0,
        num_rows: int | None = None,
        partition_id: int = 0,
        source: MorselSource = MorselSource.LOCAL,
    ) -> None:
        self.batch = batch
        self.start_row = start_row
        self._num_rows = num_rows
        self.partition_id = partition_id
        self.source = source

    @property
    def num_rows(self) -> int:
        """As set; else what is left of the batch after `start_row`; 0 without a batch."""
        if self._num_rows is not None:
            return self._num_rows
        return 0 if self.batch is None else max(0, self.batch.num_rows - self.start_row)

    @num_rows.setter
    def num_rows(self, rows: int | None) -> None:
        self._num_rows = rows

    def __repr__(self) -> str:
        return (
            f"Morsel(start_row={self.start_row}, num_rows={self.num_rows}, partition_id={self.partition_id}, "
            f"source={self.source})"
        )


def add_morsel(run: MorselRun, morsel: Morsel) -> None:
    """Adds `morsel` to a run; UsageError where it is not one, or its rows are not in its batch."""
    if not isinstance(morsel, Morsel):
        raise UsageError(f"morsel {len(run)} is of type {type(morsel).__qualname__}; give sabot.Morsel objects")
    if morsel.batch is None:
        raise UsageError(f"morsel {len(run)} has no batch; set its batch before giving it to the slots")
    if not isinstance(morsel.source, MorselSource):
        raise UsageError(f"the source of morsel {len(run)} is {morsel.source!r}; use MorselSource.LOCAL or NETWORK")
    try:
        run.add(
            morsel.batch,
            morsel.start_row,
            morsel.num_rows,
            morsel.partition_id,
            morsel.source is MorselSource.NETWORK,
        )
    except (TypeError, OverflowError) as error:
        raise UsageError(
            f"morsel {len(run)}: start_row, num_rows and partition_id must be integers: {error}"
        ) from error


def check_morsel_bytes(morsel_bytes: MorselBytes) -> int | None:
    """The size in bytes, None for "auto"; UsageError for what is neither "auto" nor a positive integer."""
    if morsel_bytes == "auto":
        return None
    if not isinstance(morsel_bytes, int) or isinstance(morsel_bytes, bool) or morsel_bytes < 1:
        raise UsageError(f'morsel_bytes is {morsel_bytes!r}; give "auto" or a number of bytes above 0')
    return int(morsel_bytes)


def rows_per_morsel(batch: pa.RecordBatch, morsel_bytes: int, num_bytes: int) -> int:
    """How many rows of `batch`, of `num_bytes`, fit `morsel_bytes`, by its average row; at least one."""
    rows: int = batch.num_rows
    return max(1, rows if num_bytes == 0 else min(rows, morsel_bytes * rows // num_bytes))


def batch_bytes(batch: pa.RecordBatch) -> int:
    """What the batch's rows refer to; of its whole buffers where Arrow cannot tell."""
    try:
        return int(batch.nbytes)
    except pa.ArrowNotImplementedError:
        return int(batch.get_total_buffer_size())


def check_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch itself; UsageError for what is none."""
    if not isinstance(batch, pa.RecordBatch):
        raise UsageError(
            f"the rows are in a {type(batch).__qualname__}; give pyarrow.RecordBatch objects (a Table has to_batches())"
        )
    return batch


def add_slices(
    run: MorselRun, batch: pa.RecordBatch, morsel_bytes: int, source: MorselSource, num_bytes: int | None = None
) -> None:
    """Adds the whole batch in morsels of `morsel_bytes`; without rows it is one morsel, so that its schema is seen."""
    check_batch(batch)
    if num_bytes is None:
        num_bytes = batch_bytes(batch)
    run.add_slices(batch, rows_per_morsel(batch, morsel_bytes, num_bytes), 0, source is MorselSource.NETWORK)
