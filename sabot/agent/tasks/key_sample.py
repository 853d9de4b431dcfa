"""A small sample of the sort keys of a task's rows, by which ranges are cut.

One row out of each stretch of equal length, chosen by a fixed seed, so that the sample stands for all parts of the rows
alike. It is for balance alone: whatever it holds, the answer is right.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.columns import table_without_rows

SAMPLE_ROWS_MAX = 256
SAMPLE_BYTES_MAX = 128 * 1024
_KEY_BYTES_MAX = 1024  # longer values take no part: boundaries go to every task


class KeySample:
    """At most SAMPLE_ROWS_MAX rows of the columns `keys`. Not for several threads at a time."""

    def __init__(self, keys: Sequence[str], schema: pa.Schema, *, seed: int) -> None:
        self._keys = list(keys)
        self._random = random.Random(seed)
        self._picked = table_without_rows(schema).select(self._keys)
        self._stretch = 1
        self._seen = 0
        self._next = 0  # the number of the row that is picked next, counted over all rows

    def add(self, batches: Sequence[pa.RecordBatch]) -> None:
        """Take note of rows."""
        for batch in batches:
            while self._picked.num_rows + batch.num_rows // self._stretch > SAMPLE_ROWS_MAX:
                self._halve()
            self._pick(batch)

    def to_bytes(self) -> bytes:
        """The sample as an Arrow IPC stream."""
        picked = _without_long_values(self._picked)
        while picked.nbytes > SAMPLE_BYTES_MAX and picked.num_rows > 1:
            picked = picked.take(pa.array(range(0, picked.num_rows, 2), pa.int64()))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, picked.schema) as writer:
            writer.write_table(picked.combine_chunks())
        return bytes(sink.getvalue())

    def _pick(self, batch: pa.RecordBatch) -> None:
        places = []
        end = self._seen + batch.num_rows
        while self._next < end:
            places.append(self._next - self._seen)
            stretch_end = self._next // self._stretch * self._stretch + self._stretch
            self._next = stretch_end + self._random.randrange(self._stretch)
        self._seen = end
        if places:
            rows = batch.select(self._keys).take(pa.array(places, pa.int64()))
            self._picked = pa.concat_tables([self._picked, pa.Table.from_batches([rows], self._picked.schema)])

    def _halve(self) -> None:
        """Of two stretches that become one, one row stays."""
        rows = self._picked.num_rows
        kept = [min(place + self._random.getrandbits(1), rows - 1) for place in range(0, rows, 2)]
        self._picked = self._picked.take(pa.array(kept, pa.int64())).combine_chunks()
        self._stretch *= 2
        self._next = max(self._next, self._seen)


def _without_long_values(picked: pa.Table) -> pa.Table:
    for name, column in zip(picked.column_names, picked.columns, strict=True):
        types = pa.types
        kind = column.type
        if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
            short = pc.less_equal(pc.binary_length(picked[name]), _KEY_BYTES_MAX)
            picked = picked.filter(pc.fill_null(short, True))
    return picked
