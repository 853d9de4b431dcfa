"""The columns that files' paths give (`key=value` folders), as pyarrow.dataset finds them, and what a filter leaves.

pyarrow.dataset is imported where it is used: an agent without such a source is spared its time and memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from sabot.agent.files.file_listing import Listing, unpack_filesystem
from sabot.dataflow.columns import arrow_error
from sabot.dataflow.scan import PruneRequest
from sabot.dataflow.stage import SourceFile
from sabot.errors import UsageError

# A comparison with a NaN, of which no minimum or maximum tells, is false, unless it is this one or inside a function.
_TRUE_FOR_NAN = re.compile(r"!=|\b(?!is_valid\b)\w+\(")


_REQUESTS_AT_ONCE = 8  # to a file system that is far away


def path_schema(listing: Listing, partitioning: Any, schema: pa.Schema | None) -> pa.Schema:
    """The columns that the paths give; their types are those of `schema` where it has them."""
    if partitioning is None or not listing.files:
        return pa.schema([])
    if partitioning == "hive" and not any("=" in info.path for info in listing.files):
        return pa.schema([])
    found = _factory(listing, partitioning).inspect(fragments=0)
    given = {} if schema is None else {field.name: field for field in schema}
    return pa.schema([given.get(field.name, field) for field in found])


def path_values(listing: Listing, partitioning: Any, schema: pa.Schema) -> list[Mapping[str, Any]]:
    """For each file the values of the columns `schema`, which `path_schema` gave."""
    if not len(schema):
        return [{} for _ in listing.files]
    import pyarrow.dataset as ds

    try:
        dataset = _factory(listing, partitioning).finish(schema)
    except pa.ArrowException as error:
        raise UsageError(f"the files' paths do not fit the partitioning: {error}") from error
    keys = {fragment.path: ds.get_partition_keys(fragment.partition_expression) for fragment in dataset.get_fragments()}
    return [keys[info.path] for info in listing.files]


def _factory(listing: Listing, partitioning: Any) -> Any:
    import pyarrow.dataset as ds

    if partitioning == "hive":
        partitioning = ds.HivePartitioning.discover()
    elif isinstance(partitioning, list | tuple) and all(isinstance(name, str) for name in partitioning):
        partitioning = ds.partitioning(field_names=list(partitioning))
    if not isinstance(partitioning, ds.Partitioning | ds.PartitioningFactory):
        raise UsageError(
            f'partitioning= takes "hive", None, a list of names or what pyarrow.dataset.partitioning gives, '
            f"not {partitioning!r}"
        )
    options = ds.FileSystemFactoryOptions(partitioning=partitioning, partition_base_dir=listing.folder)
    paths = [info.path for info in listing.files]
    return ds.FileSystemDatasetFactory(listing.filesystem, paths, ds.ParquetFileFormat(), options)


def rows_left(request: PruneRequest) -> list[Sequence[int] | None]:
    """For each file the row groups that may have rows that pass the filter; None for a whole file, () for nothing."""
    try:
        return _rows_left(request)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise arrow_error(error, request.schema, "filter") from error


def _rows_left(request: PruneRequest) -> list[Sequence[int] | None]:
    import pyarrow.dataset as ds

    filesystem, schema = unpack_filesystem(request.filesystem), request.schema
    kind = ds.ParquetFileFormat()
    fragments = [
        kind.make_fragment(file.path, filesystem, partition_expression=_expression(file, schema))
        for file in request.files
    ]
    # Which fragments are left is told by the paths: those of equal values share an answer.
    dataset = ds.FileSystemDataset(fragments, schema, kind, filesystem)
    paths = {fragment.path for fragment in dataset.get_fragments(filter=request.filter)}
    by_groups = _can_use_statistics(request)

    def left(file: SourceFile, fragment: Any) -> Sequence[int] | None:
        if file.path not in paths:
            return ()
        if request.format != "parquet":
            return None
        groups = range(len(file.row_group_rows))
        return _groups_left(fragment, request, groups) if by_groups else groups

    if isinstance(filesystem, fs.LocalFileSystem):
        return list(map(left, request.files, fragments))
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="sabot-sources") as pool:
        return list(pool.map(left, request.files, fragments))


def _expression(file: SourceFile, schema: pa.Schema) -> pc.Expression:
    """What all rows of a file have in common."""
    common = pc.scalar(True)
    for name, value in file.partition:
        if name in schema.names:
            field = pc.field(name)
            kind = schema.field(name).type
            plain = kind.value_type if pa.types.is_dictionary(kind) else kind
            common &= field.is_null() if value is None else field == pa.scalar(value, plain)
    return common


def _can_use_statistics(request: PruneRequest) -> bool:
    """Not where a filter might be true for a NaN that the statistics of a column do not tell of."""
    text = str(request.filter)
    floats = [field.name for field in request.schema if pa.types.is_floating(field.type) and field.name in text]
    return not floats or not _TRUE_FOR_NAN.search(text)


def _groups_left(fragment: Any, request: PruneRequest, groups: Sequence[int]) -> Sequence[int]:
    text = str(request.filter)
    try:
        physical = fragment.physical_schema
        for field in request.schema:
            index = physical.get_field_index(field.name)
            if field.name in text and index >= 0 and physical.field(index).type != field.type:
                return groups  # the statistics are of other values than those that are compared
        kept = {group.id for group in fragment.subset(request.filter, schema=request.schema).row_groups}
    except (OSError, pa.ArrowException):
        return groups  # a file that is gone or has changed is refused by name when it is read
    return [group for group in groups if group in kept]


def constant_column(value: Any, kind: pa.DataType, rows: int) -> pa.ChunkedArray:
    """A column of one value."""
    if value is None:
        return pa.chunked_array([pa.nulls(rows, kind)])
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    column = pa.repeat(pa.scalar(value, plain), rows)
    return pa.chunked_array([column if plain == kind else column.dictionary_encode().cast(kind)])
