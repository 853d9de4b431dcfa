"""The steps that call a user's function: on each batch, or on each partition as a whole.

Where it runs in worker processes a function travels packed: only they open it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow as pa

from sabot.wire.packed_function import PackedFunction, pack_function

OnError = Literal["raise", "quarantine"]
BatchFunction = Callable[[pa.RecordBatch], pa.RecordBatch | None]
PartitionCallable = Callable[[pa.Table], Any]
"""Gives a table, a batch, anything with `__arrow_c_stream__`, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapBatches:
    """Calls the user's function with each RecordBatch; its answer must have `schema`. Runs per morsel.

    With `batch_rows` the batches are of exactly so many rows, but the last of a task. With `processes` it is called in
    workers, at most `timeout_s` for a batch. With `on_error="quarantine"` a batch that it fails on is kept with the
    failure, and the task goes on.
    """

    function: BatchFunction | PackedFunction
    schema: pa.Schema
    name: str
    batch_rows: int | None = None
    processes: bool = False
    timeout_s: float | None = None
    on_error: OnError = "raise"
    given: pa.Schema | None = None  # the columns that it is called with

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_map_batches, (_travelling(self),)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPartitions:
    """Calls the user's function with all rows of a task as one table. Runs per task."""

    function: PartitionCallable | PackedFunction
    schema: pa.Schema
    name: str
    processes: bool = False
    timeout_s: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_map_partitions, (_travelling(self),)


def _restore_map_batches(values: dict[str, Any]) -> MapBatches:
    return MapBatches(**values)


def _restore_map_partitions(values: dict[str, Any]) -> MapPartitions:
    return MapPartitions(**values)


def _travelling(step: MapBatches | MapPartitions) -> dict[str, Any]:
    """The step's fields by name, its function packed if only workers may open it."""
    values = {field.name: getattr(step, field.name) for field in fields(step)}
    return values | {"function": pack_function(step.function, step.name)} if step.processes else values
