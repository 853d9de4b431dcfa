"""The logical plan of a Dataset: a tree of frozen nodes, each of which checks itself against its inputs' columns.

A node's schema is what pyarrow itself gives for tables without rows. Nodes with functions of the user's are in
function_nodes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.columns import arrow_error, check_columns, check_keys, nearest, plain_schema
from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.expressions import check_filter, project_schema
from sabot.dataflow.grouping import target_columns
from sabot.dataflow.join_arguments import check_join
from sabot.dataflow.stage import Aggregate, FileFormat, Head, Join, ScanTotals, Sort, SourceFile, TableStep
from sabot.errors import UsageError


# Nodes have no slots, since a cached_property needs a __dict__, and are equal only to themselves, as tables are.
@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One operation on the rows of its inputs."""

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes whose rows this one takes."""
        return ()

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns, all nullable, without metadata; UsageError where the operation does not fit its inputs."""
        return self._learn_schema()

    def _learn_schema(self) -> pa.Schema:
        raise NotImplementedError(type(self).__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScanNode(Node):
    """Files that agents read; `columns` None means all. `file_schema` is that of the columns read, `column_widths` are
    the mean bytes of their values in Arrow's form, as far as they are known.

    `left` tells which row groups of each file may have rows that pass a filter; None: the whole file. `row_groups`
    and `totals` are there once that has left out something.
    """

    format: FileFormat
    files: tuple[SourceFile, ...]
    columns: tuple[str, ...] | None = None
    file_schema: pa.Schema
    filesystem: bytes = b""
    options: Mapping[str, Any] = field(default_factory=dict)
    left: Callable[[pc.Expression], Sequence[Sequence[int] | None]] | None = None
    row_groups: tuple[tuple[int, ...], ...] | None = None
    totals: ScanTotals | None = None
    column_widths: Mapping[str, float] = field(default_factory=dict)

    def _learn_schema(self) -> pa.Schema:
        return with_columns(plain_schema(self.file_schema), f"read_{self.format}")


@dataclass(frozen=True, kw_only=True, eq=False)
class TableNode(Node):
    """A table of the client's, to be uploaded under `table_id`."""

    table_id: str
    table: pa.Table

    def _learn_schema(self) -> pa.Schema:
        return with_columns(plain_schema(self.table.schema), "from_table")


def with_columns(schema: pa.Schema, what: str) -> pa.Schema:
    """The schema itself; UsageError where it has no column."""
    if len(schema) == 0:
        raise UsageError(f"{what}: there are no columns; a Dataset needs at least one")
    return schema


@dataclass(frozen=True, kw_only=True, eq=False)
class OneInput(Node):
    """A node that takes the rows of one other."""

    child: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.child,)


@dataclass(frozen=True, kw_only=True, eq=False)
class FilterNode(OneInput):
    """Rows for which the expression is true; `passed` is what the planner has moved it down through."""

    expression: pc.Expression
    passed: tuple[str, ...] = ()

    def _learn_schema(self) -> pa.Schema:
        check_filter(self.child.schema, self.expression, "filter")
        return self.child.schema


@dataclass(frozen=True, kw_only=True, eq=False)
class ProjectNode(OneInput):
    """The expressions' values, named `names`; `what` is the method that asked for it."""

    names: tuple[str, ...]
    expressions: tuple[pc.Expression, ...]
    what: str = "select"

    def _learn_schema(self) -> pa.Schema:
        if not self.names:
            raise UsageError(f"{self.what}: no column would be left; count_rows() tells how many rows there are")
        return project_schema(self.child.schema, self.names, self.expressions, self.what)


@dataclass(frozen=True, kw_only=True, eq=False)
class JoinNode(Node):
    """Rows of both sides whose keys are equal."""

    left: Node
    right: Node
    step: Join

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.left, self.right)

    def _learn_schema(self) -> pa.Schema:
        check_join(self.step, self.left.schema, self.right.schema)
        return _schema_after(self.step, [self.left.schema, self.right.schema], "join")


@dataclass(frozen=True, kw_only=True, eq=False)
class AggregateNode(OneInput):
    """Aggregates per group of equal keys; without keys one row for all."""

    step: Aggregate

    def _learn_schema(self) -> pa.Schema:
        schema = self.child.schema
        check_keys(self.step.keys, schema, "group_by")
        if not self.step.keys and not self.step.aggregations:
            raise UsageError("group_by: without keys there must be at least one aggregation")
        for target, function, *_ in self.step.aggregations:
            check_columns(target_columns(target), schema, "aggregate")
            _check_function(function.removeprefix("hash_"), grouped=bool(self.step.keys))
        return _schema_after(self.step, [schema], "aggregate")


def _check_function(function: str, *, grouped: bool) -> None:
    registered = set(pc.list_functions())
    known = sorted(name.removeprefix("hash_") for name in registered if name.startswith("hash_"))
    if function not in known:
        guess = nearest(function, known)
        advice = f"did you mean {guess!r}? " if guess else ""
        raise UsageError(f"aggregate: no function {function!r}; {advice}There are: {', '.join(known)}")
    if not grouped and function not in registered:
        raise UsageError(f"aggregate: pyarrow has {function!r} with keys only; group_by a column that is always equal")


@dataclass(frozen=True, kw_only=True, eq=False)
class SortNode(OneInput):
    """All rows in order, equal ones in the order in which they came."""

    step: Sort

    def _learn_schema(self) -> pa.Schema:
        if not self.step.sorting:
            raise UsageError("sort_by: at least one column must be given")
        check_columns([key[0] for key in self.step.sorting], self.child.schema, "sort_by")
        return _schema_after(self.step, [self.child.schema], "sort_by")


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadNode(OneInput):
    """The first rows if they are sorted, otherwise any."""

    step: Head

    def _learn_schema(self) -> pa.Schema:
        return self.child.schema


@dataclass(frozen=True, kw_only=True, eq=False)
class RepartitionNode(OneInput):
    """The same rows, those with equal keys together; without keys dealt out evenly."""

    keys: tuple[str, ...]
    num_partitions: int | None

    def _learn_schema(self) -> pa.Schema:
        check_keys(self.keys, self.child.schema, "repartition")
        return self.child.schema


def _schema_after(step: TableStep, schemas: list[pa.Schema], what: str) -> pa.Schema:
    try:
        return plain_schema(apply_table_step(step, [schema.empty_table() for schema in schemas]).schema)
    except (pa.ArrowException, TypeError, ValueError, KeyError, NotImplementedError) as error:
        raise arrow_error(error, schemas[0], what) from error


def tables_of(root: Node) -> dict[str, pa.Table]:
    """The client's tables that the plan reads, by their ids."""
    found = {root.table_id: root.table} if isinstance(root, TableNode) else {}
    for node in root.inputs:
        found.update(tables_of(node))
    return found
