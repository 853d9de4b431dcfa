"""The nodes of the logical plan that call a user's function, and the check of what he gave for them.

Without `schema=` a node learns its columns late, when first asked, since the function must be called for it: by the
session, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sabot.dataflow.columns import plain_schema
from sabot.dataflow.function_steps import BatchFunction, OnError, PartitionCallable
from sabot.dataflow.learned_schema import LearnSchema, SchemaProbe
from sabot.dataflow.partition_function import PartitionProbe
from sabot.dataflow.plan import Node, OneInput, with_columns
from sabot.errors import UsageError


@dataclass(frozen=True, kw_only=True, eq=False)
class _FunctionNode(OneInput):
    """A call of the user's function. `learn` is asked for the schema where none is `declared`."""

    function: Callable[..., Any]
    learn: LearnSchema
    declared: pa.Schema | None = None
    processes: bool = True
    timeout_s: float | None = None

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return shown_name(self.function)

    @property
    def schema_is_known(self) -> bool:
        """Whether asking for the schema calls no function of the user's."""
        return self.declared is not None or "schema" in self.__dict__


@dataclass(frozen=True, kw_only=True, eq=False)
class MapBatchesNode(_FunctionNode):
    """What the user's function makes of each batch."""

    function: BatchFunction
    batch_rows: int | None = None
    on_error: OnError = "raise"

    def _learn_schema(self) -> pa.Schema:
        if self.declared is not None:
            return with_columns(plain_schema(self.declared), "map_batches: schema=")
        learnt = self.learn(SchemaProbe(self.function, self.name), self.child.schema)
        return with_columns(plain_schema(learnt), f"map_batches: {self.name}")


@dataclass(frozen=True, kw_only=True, eq=False)
class MapPartitionsNode(_FunctionNode):
    """What the user's function makes of each partition."""

    function: PartitionCallable

    def _learn_schema(self) -> pa.Schema:
        if self.declared is not None:
            return with_columns(plain_schema(self.declared), "map_partitions: schema=")
        learnt = self.learn(PartitionProbe(self.function, self.name), self.child.schema)
        return with_columns(plain_schema(learnt), f"map_partitions: {self.name}")


def shown_name(function: Callable[..., Any]) -> str:
    """A function's name for messages, without where it was defined."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(name).rsplit("<locals>.", maxsplit=1)[-1]


def map_batches_node(
    child: Node,
    function: BatchFunction,
    *,
    learn: LearnSchema,
    batch_rows: int | None,
    schema: pa.Schema | None,
    processes: bool,
    on_error: OnError,
    timeout_s: float | None,
) -> MapBatchesNode:
    """The node of `Dataset.map_batches`; UsageError for arguments that do not fit."""
    _check_function(function, schema, processes, timeout_s, what="map_batches", takes="a pyarrow.RecordBatch")
    if batch_rows is not None and (
        isinstance(batch_rows, bool) or not isinstance(batch_rows, int) or not 1 <= batch_rows < 1 << 31
    ):
        advice = "; pass the schema as schema=" if isinstance(batch_rows, pa.Schema) else ""
        shown = "a Schema" if isinstance(batch_rows, pa.Schema) else repr(batch_rows)
        raise UsageError(f"map_batches: batch_rows is a number of rows from 1 on, or None, not {shown}{advice}")
    if on_error not in ("raise", "quarantine"):
        raise UsageError(f'map_batches: on_error is "raise" or "quarantine", not {on_error!r}')
    return MapBatchesNode(
        child=child,
        function=function,
        learn=learn,
        declared=schema,
        batch_rows=batch_rows,
        processes=processes,
        timeout_s=timeout_s,
        on_error=on_error,
    )


def map_partitions_node(
    child: Node,
    function: PartitionCallable,
    *,
    learn: LearnSchema,
    schema: pa.Schema | None,
    processes: bool,
    timeout_s: float | None,
) -> MapPartitionsNode:
    """The node of `Dataset.map_partitions`; UsageError for arguments that do not fit."""
    _check_function(function, schema, processes, timeout_s, what="map_partitions", takes="a pyarrow.Table")
    return MapPartitionsNode(
        child=child, function=function, learn=learn, declared=schema, processes=processes, timeout_s=timeout_s
    )


def _check_function(
    function: object, schema: object, processes: bool, timeout_s: object, *, what: str, takes: str
) -> None:
    if not callable(function):
        raise UsageError(f"{what}: takes a function of {takes}, not {type(function).__name__}")
    if schema is not None and not isinstance(schema, pa.Schema):
        raise UsageError(f"{what}: schema= takes a pyarrow.Schema, not {type(schema).__name__}")
    if timeout_s is not None and (not isinstance(timeout_s, int | float) or not timeout_s > 0):
        raise UsageError(f"{what}: timeout_s is a number of seconds above 0, or None, not {timeout_s!r}")
    if timeout_s is not None and not processes:
        raise UsageError(f"{what}: timeout_s needs processes=True; a call inside the agent cannot be stopped")
