"""Reads row groups of a Parquet file some rows at a time, so that it does not matter how many they have in memory.

How many rows a batch has is chosen by the footer, which may guess wrong; so batches are counted as they come. Where
encoded pages alone are more than may be held, they too are read bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from sabot.agent.files.footers import Footers
from sabot.agent.files.parquet_sizes import rows_at_once
from sabot.dataflow.splits import part_bytes
from sabot.dataflow.stage import FilePart

_PAGES_BYTES_MIN, _PAGES_BYTES_MAX = 16 << 10, 1 << 20  # of a column, read by one request


class ParquetRows:
    """The rows of `piece`, of the `wanted` columns that the file has; about `bytes_max` at a time. One thread at a time
    reads them."""

    def __init__(
        self,
        opened: pa.NativeFile,
        piece: FilePart,
        wanted: pa.Schema,
        footers: Footers,
        *,
        filesystem: bytes,
        bytes_max: int,
    ) -> None:
        self._piece = piece
        self._bytes_max = bytes_max
        self._parquet = footers.open(opened, piece.file, filesystem, buffer_bytes=_buffer_bytes(piece, bytes_max))
        self._rows = 0
        found = self._parquet.schema_arrow
        names = set(wanted.names)
        self._columns = None if names.issuperset(found.names) else [name for name in found.names if name in names]
        self._schema = found if self._columns is None else pa.schema([found.field(name) for name in self._columns])
        self._batches = self._read(any(_is_nested_dictionary(field.type) for field in self._schema))

    @property
    def ended(self) -> bool:
        """Whether all have been read."""
        return self._piece.rows is not None and self._rows >= self._piece.rows

    def read(self) -> pa.Table:
        """The next rows; none only where there are none. OSError where there are others than the footer promised."""
        taken: list[pa.RecordBatch] = []
        size = rows = 0
        for batch in self._batches:
            taken.append(batch)
            size += batch.nbytes
            rows += batch.num_rows
            # The next one is as large, presumably. After the last one it is seen that there are no others.
            if size + batch.nbytes > self._bytes_max and self._rows + rows != self._piece.rows:
                break
        else:
            if self._rows + rows != self._piece.rows:
                raise OSError(
                    f"row groups {self._piece.row_groups} gave {self._rows + rows:,} rows and have {self._piece.rows:,}"
                )
        self._rows += rows
        # A table without columns has the rows of its batches, which it has not from its schema.
        return pa.Table.from_batches(taken, None if taken else self._schema)

    def close(self) -> None:
        self._batches = iter(())
        self._parquet.close()

    def _read(self, nested_dictionary: bool) -> Iterator[pa.RecordBatch]:
        groups = list(self._piece.row_groups or ())
        rows = rows_at_once(
            self._parquet.metadata, self._parquet.schema_arrow, self._schema.names, groups, self._bytes_max
        )
        # Dictionaries within lists and structs of several row groups are beyond pyarrow's reader.
        for run in [[group] for group in groups] if nested_dictionary else [groups]:
            yield from self._parquet.iter_batches(
                batch_size=rows, row_groups=run, columns=self._columns, use_threads=False
            )


def _buffer_bytes(piece: FilePart, bytes_max: int) -> int:
    """Of each column; 0: its encoded pages are read at once, as they are few."""
    encoded = part_bytes(piece)
    if encoded <= bytes_max:
        return 0
    return min(_PAGES_BYTES_MAX, max(_PAGES_BYTES_MIN, bytes_max * _PAGES_BYTES_MIN // encoded))


def _is_nested_dictionary(kind: pa.DataType) -> bool:
    fields = [kind.field(index) for index in range(kind.num_fields)]
    return any(pa.types.is_dictionary(field.type) or _is_nested_dictionary(field.type) for field in fields)
