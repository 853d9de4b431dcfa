"""What `write_dataset` is given, checked and put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, cast

import pyarrow as pa

from sabot.dataflow.columns import check_columns, check_keys
from sabot.dataflow.stage import WriteOutput
from sabot.errors import UsageError

_FORMATS: dict[str, Literal["parquet", "csv", "ipc"]] = {
    "parquet": "parquet",
    "csv": "csv",
    "ipc": "ipc",
    "arrow": "ipc",
    "feather": "ipc",
}
_OPEN_FILES = 128  # a task; several run at once, and a process may often have 1024
_ENDINGS = {"parquet": "parquet", "csv": "csv", "ipc": "arrow"}
_EXISTING = ("error", "overwrite_or_ignore", "delete_matching")
_FLAVORS = {"HivePartitioning": "hive", "DirectoryPartitioning": None}


def write_output(
    base_dir: str | PurePath,
    schema: pa.Schema,
    *,
    format: str,
    basename_template: str | None,
    partitioning: Any,
    partitioning_flavor: str | None,
    filesystem: Any,
    file_options: Mapping[str, Any] | None,
    max_open_files: int | None,
    max_rows_per_file: int | None,
    max_rows_per_group: int | None,
    existing_data_behavior: str,
) -> WriteOutput:
    """The output; UsageError for what does not fit together or to the columns."""
    if format not in _FORMATS:
        raise UsageError(f"write_dataset: no format {format!r}; there are {', '.join(map(repr, _FORMATS))}")
    kind = _FORMATS[format]
    template = f"part-{{i}}.{_ENDINGS[kind]}" if basename_template is None else basename_template
    if not isinstance(template, str) or "{i}" not in template or "/" in template or template.startswith("."):
        raise UsageError(
            f"write_dataset: basename_template is a file's name with {{i}} for its number, not {template!r}"
        )
    if existing_data_behavior not in _EXISTING:
        raise UsageError(
            f"write_dataset: existing_data_behavior is one of {', '.join(map(repr, _EXISTING))}, "
            f"not {existing_data_behavior!r}"
        )
    if file_options is not None and not isinstance(file_options, Mapping):
        raise UsageError(
            "write_dataset: file_options takes a dict of what pyarrow's writer of the format takes, such as "
            f'{{"compression": "zstd"}}, not {type(file_options).__name__}, which cannot be sent to agents'
        )
    names, flavor = _partitioning(partitioning, partitioning_flavor)
    check_keys(names, schema, "write_dataset: partitioning")
    if names and len(set(names)) == len(schema):
        raise UsageError("write_dataset: all columns are in the folders' names, and none is left for the files")
    if len(set(schema.names)) < len(schema):
        check_columns(schema.names, schema, "write_dataset")
    return WriteOutput(
        folder=str(base_dir),
        format=kind,
        partitioning=names,
        partitioning_flavor=cast(Literal["hive"] | None, flavor),
        basename_template=template,
        existing_data_behavior=cast(Literal["error", "overwrite_or_ignore", "delete_matching"], existing_data_behavior),
        max_rows_per_file=_count("max_rows_per_file", max_rows_per_file) or 0,
        max_rows_per_group=_count("max_rows_per_group", max_rows_per_group),
        max_open_files=_count("max_open_files", max_open_files) or _OPEN_FILES,
        file_options=dict(file_options or {}),
        filesystem=filesystem,
    )


def _partitioning(given: Any, flavor: str | None) -> tuple[tuple[str, ...], str | None]:
    """The columns and the flavor, from names or from what pyarrow.dataset.partitioning gives."""
    if given is None:
        return (), flavor
    kind = type(given).__name__
    if kind in _FLAVORS and isinstance(getattr(given, "schema", None), pa.Schema):
        return tuple(given.schema.names), _FLAVORS[kind]
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise UsageError(
            "write_dataset: partitioning takes a list of columns, or pyarrow.dataset.partitioning(schema, flavor), "
            f"not {given!r}"
        )
    if flavor not in ("hive", None):
        raise UsageError(f'write_dataset: partitioning_flavor is "hive" or None, not {flavor!r}')
    if len(set(given)) < len(given):
        raise UsageError(f"write_dataset: a column is twice in partitioning={list(given)!r}")
    return tuple(given), flavor


def _count(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise UsageError(f"write_dataset: {name} is a number from 0 on, or None, not {value!r}")
    return value or None
