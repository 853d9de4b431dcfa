"""How many bytes the columns of a Parquet file have once they are read, as far as its footer tells.

Pages are encoded: a column of few texts takes a hundredth of what it has in memory. Columns whose values are equally
long are counted; of others the texts' length is taken from the least and the greatest, in few row groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from sabot.dataflow.estimates import fixed_width

_GROUPS_LOOKED_AT = 2
_OFFSET_BYTES = 4
_LENGTH_GUESSED = 32  # of texts of which the footer has no least and greatest
_TEXTS = ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
_UNPACKED = frozenset({"PLAIN", "RLE", "BIT_PACKED", "DELTA_LENGTH_BYTE_ARRAY"})
"""Encodings by which every text of a column lies in the file, one by one: they have no more bytes than their pages."""
_GUESSED_ROWS_MAX = 1 << 14  # as fast as any more: 0.26 s of CPU for 130 MB, 0.27 s by half of it
_UNKNOWN_ROWS_MAX = 1 << 12
_BATCHES = 4  # pyarrow's reader holds one while it makes the next


def decoded_bytes(metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, int]:
    """Bytes by name of the file's columns; of none where they cannot be told apart."""
    widths = _widths(metadata, schema, range(metadata.num_row_groups), _leaf_bytes)
    return {name: int(width * metadata.num_rows) for name, width in widths.items()}


def rows_at_once(
    metadata: pq.FileMetaData, schema: pa.Schema, columns: Sequence[str], groups: Sequence[int], bytes_max: int
) -> int:
    """How many rows of these row groups, of these columns, to read as a batch: all where they surely have no more than
    `bytes_max`, else some part of as many as have that, so that whoever counts what he has read can stop in time.
    """
    rows: int = sum(metadata.row_group(group).num_rows for group in groups)
    if rows <= _UNKNOWN_ROWS_MAX // _BATCHES:
        return max(1, rows)
    doubts: list[int] = []

    def leaf_bytes(chunk: pq.ColumnChunkMetaData) -> float:
        if chunk.physical_type in _TEXTS and not _UNPACKED.issuperset(chunk.encodings):
            doubts.append(_GUESSED_ROWS_MAX if _ends(chunk) else _UNKNOWN_ROWS_MAX)
        return _leaf_bytes(chunk)

    widths = _widths(metadata, schema, groups, leaf_bytes, frozenset(columns))
    if len(columns) and not widths:
        return _UNKNOWN_ROWS_MAX
    at_once = int(bytes_max / max(1.0, sum(widths.values())))
    if doubts or at_once < rows:
        at_once = min(at_once // _BATCHES, *doubts, rows)
    return max(1, min(rows, at_once))


def _widths(
    metadata: pq.FileMetaData,
    schema: pa.Schema,
    groups: Sequence[int],
    leaf_bytes: Callable[[pq.ColumnChunkMetaData], float],
    wanted: frozenset[str] | None = None,
) -> dict[str, float]:
    """The mean bytes of a value of each wanted column; none where the file's columns cannot be told apart."""
    leaves = [_leaves(field.type) for field in schema]
    if sum(leaves) != metadata.num_columns:
        return {}
    looked_at = _some_groups(metadata, groups)
    looked_at_rows = sum(group.num_rows for group in looked_at)
    found: dict[str, float] = {}
    first = 0
    for field, count in zip(schema, leaves, strict=True):
        if wanted is None or field.name in wanted:
            width = None if pa.types.is_dictionary(field.type) else fixed_width(field.type)
            if width is None:
                held = sum(
                    leaf_bytes(group.column(leaf)) for group in looked_at for leaf in range(first, first + count)
                )
                width = held / max(1, looked_at_rows)
            found[field.name] = width
        first += count
    return found


def _some_groups(metadata: pq.FileMetaData, groups: Sequence[int]) -> list[pq.RowGroupMetaData]:
    last = len(groups) - 1
    places = {place * last // max(1, _GROUPS_LOOKED_AT - 1) for place in range(_GROUPS_LOOKED_AT)} if groups else ()
    return [metadata.row_group(groups[place]) for place in sorted(places)]


def _leaf_bytes(chunk: pq.ColumnChunkMetaData) -> float:
    """Of a leaf in one row group: its encoded size at least."""
    length = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4}.get(chunk.physical_type, 8)
    if chunk.physical_type in _TEXTS:
        length = _OFFSET_BYTES + max((len(end) for end in _ends(chunk)), default=_LENGTH_GUESSED)
    return max(float(chunk.num_values * length), float(chunk.total_uncompressed_size))


def _ends(chunk: pq.ColumnChunkMetaData) -> list[bytes]:
    """The least and the greatest value of texts, if the footer has them; of decimals as many bytes as they may have."""
    statistics = chunk.statistics
    if statistics is None or not statistics.has_min_max:
        return []
    ends = [end for end in (statistics.min, statistics.max) if isinstance(end, str | bytes)]
    return [end.encode() if isinstance(end, str) else end for end in ends] or [bytes(16)]


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
