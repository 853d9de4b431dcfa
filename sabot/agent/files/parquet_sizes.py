"""How many bytes the columns of a Parquet file have once they are read, as far as its footer tells.

Pages are encoded: a column of few texts takes a hundredth of what it has in memory. Columns whose values are equally
long are counted; of others the texts' length is taken from the least and the greatest, in few row groups.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from sabot.dataflow.estimates import fixed_width

_GROUPS_LOOKED_AT = 2
_OFFSET_BYTES = 4
_LENGTH_GUESSED = 32  # of texts of which the footer has no least and greatest


def decoded_bytes(metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, int]:
    """Bytes by name of the file's columns; of none where they cannot be told apart."""
    leaves = [_leaves(field.type) for field in schema]
    if sum(leaves) != metadata.num_columns:
        return {}
    looked_at = _some_groups(metadata)
    looked_at_rows = sum(group.num_rows for group in looked_at)
    found: dict[str, int] = {}
    first = 0
    for field, count in zip(schema, leaves, strict=True):
        width = None if pa.types.is_dictionary(field.type) else fixed_width(field.type)
        if width is None:
            held = sum(_leaf_bytes(group.column(leaf)) for group in looked_at for leaf in range(first, first + count))
            width = held / max(1, looked_at_rows)
        found[field.name] = int(width * metadata.num_rows)
        first += count
    return found


def _some_groups(metadata: pq.FileMetaData) -> list[pq.RowGroupMetaData]:
    count = metadata.num_row_groups
    places = (
        {place * (count - 1) // max(1, _GROUPS_LOOKED_AT - 1) for place in range(_GROUPS_LOOKED_AT)} if count else ()
    )
    return [metadata.row_group(place) for place in sorted(places)]


def _leaf_bytes(chunk: pq.ColumnChunkMetaData) -> float:
    """Of a leaf in one row group: its encoded size at least."""
    length = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}.get(chunk.physical_type, 8)
    if chunk.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
        length = _OFFSET_BYTES + _text_length(chunk)
    return max(float(chunk.num_values * length), float(chunk.total_uncompressed_size))


def _text_length(chunk: pq.ColumnChunkMetaData) -> int:
    statistics = chunk.statistics
    if statistics is None or not statistics.has_min_max:
        return _LENGTH_GUESSED
    ends = [end for end in (statistics.min, statistics.max) if isinstance(end, str | bytes)]
    return max((len(end.encode() if isinstance(end, str) else end) for end in ends), default=16)


def _leaves(kind: pa.DataType) -> int:
    """Columns of the file that a field of this type is stored in."""
    types = pa.types
    if types.is_dictionary(kind):
        return _leaves(kind.value_type)
    if types.is_struct(kind):
        return sum(_leaves(field.type) for field in kind.fields)
    if types.is_map(kind):
        return _leaves(kind.key_type) + _leaves(kind.item_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _leaves(kind.value_type)
    return 1
