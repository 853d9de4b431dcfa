"""The typed face of the compiled core."""

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

BUILT_FOR_PYARROW: int

# rows

def hash_column(array: pa.Array) -> pa.UInt64Array: ...
def hash_keys(batch: pa.RecordBatch, key_columns: Sequence[str]) -> pa.UInt64Array: ...
def partition_of(hashes: pa.UInt64Array, num_partitions: int) -> pa.Int32Array: ...
def content_sum(batch: pa.RecordBatch, key_columns: Sequence[str], column: int) -> int: ...
def checksum_batch(batch: pa.RecordBatch) -> int: ...
def scatter(
    batches: Sequence[pa.RecordBatch],
    key_columns: Sequence[str],
    num_partitions: int,
    owner_of: Sequence[int],
    sum_column: int,
    chunk_bytes_max: int,
    partitioning: Literal["hash", "round_robin"] = "hash",
    first_row: int = 0,
) -> list[tuple[int, pa.RecordBatch, list[tuple[int, int, int]]]]: ...
