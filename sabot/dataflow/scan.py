"""What a client asks an agent about files: which there are, what columns they have, and what of them a filter leaves.

Values only; they travel by cloudpickle between equal versions of Sabot. File systems, partitionings and readers'
options are pyarrow's own objects, which the agent opens and this house does not look into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.stage import FileFormat, SourceFile


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRequest:
    """List these files. `paths` are absolute, URIs, or paths of `filesystem`, a pyarrow.fs.FileSystem.

    `partitioning` is "hive", a pyarrow.dataset partitioning or None; `schema` None takes the first file's; `options`
    are the format's read_options, parse_options and convert_options, where given.
    """

    format: FileFormat
    paths: tuple[str, ...]
    filesystem: Any = None
    partitioning: Any = None
    schema: pa.Schema | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRequest:
    """Which row groups of `files`, listed before with the dataset's `schema`, may have rows that pass `filter`."""

    format: FileFormat
    files: tuple[SourceFile, ...]
    filesystem: bytes
    schema: pa.Schema
    filter: pc.Expression
