"""Rows of several datasets one after the other, under one schema, as pyarrow.concat_tables puts tables together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.columns import check_columns, plain_schema
from sabot.dataflow.plan import Node, ProjectNode
from sabot.errors import UsageError

PromoteOptions = Literal["none", "default", "permissive"]


@dataclass(frozen=True, kw_only=True, eq=False)
class UnionNode(Node):
    """All rows of all parts, whose schemas are the same; equal rows stay as often as they are there."""

    parts: tuple[Node, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.parts

    def _learn_schema(self) -> pa.Schema:
        return self.parts[0].schema


def union_of(parts: Sequence[Node], promote_options: PromoteOptions) -> Node:
    """The parts' rows under the schema that pyarrow gives them; UsageError where it gives none."""
    if promote_options not in get_args(PromoteOptions):
        known = ", ".join(map(repr, get_args(PromoteOptions)))
        raise UsageError(f"union: promote_options is one of {known}, not {promote_options!r}")
    if len(parts) == 1:
        return parts[0]
    schema = _common_schema([part.schema for part in parts], promote_options)
    return UnionNode(parts=tuple(_promoted(part, schema) for part in parts))


def _common_schema(schemas: Sequence[pa.Schema], promote_options: PromoteOptions) -> pa.Schema:
    try:
        tables = [schema.empty_table() for schema in schemas]
        return plain_schema(pa.concat_tables(tables, promote_options=promote_options).schema)
    except pa.ArrowException as error:
        shown = "; ".join(str(schema).replace("\n", ", ") for schema in schemas)
        advice = "" if promote_options == "permissive" else ', or promote_options="default" or "permissive"'
        raise UsageError(
            f"union: these schemas do not go together: {shown}. select, rename or cast columns{advice}"
        ) from error


def _promoted(part: Node, schema: pa.Schema) -> Node:
    """The part's rows with the columns of `schema`: those that it lacks are null."""
    if part.schema.equals(schema):
        return part
    check_columns(part.schema.names, part.schema, "union")
    known = part.schema
    return ProjectNode(
        child=part,
        names=tuple(schema.names),
        expressions=tuple(
            _column(field, known.field(field.name).type if field.name in known.names else None) for field in schema
        ),
        what="union",
    )


def _column(field: pa.Field, known: pa.DataType | None) -> pc.Expression:
    if known is None:
        return pc.scalar(pa.scalar(None, field.type))
    column = pc.field(field.name)
    return column if known.equals(field.type) else column.cast(field.type)
