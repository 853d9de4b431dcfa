"""What a pyarrow expression needs and gives, found out by binding it to tables without rows."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import _acero as acero  # pyarrow.acero imports pyarrow.dataset: 16 MB, with pandas 50

from sabot.dataflow.columns import arrow_error, plain_schema
from sabot.errors import UsageError


def table_source(table: pa.Table) -> acero.Declaration:
    """The start of a plan: the table's rows."""
    return acero.Declaration("table_source", acero.TableSourceNodeOptions(table))


def project_table(table: pa.Table, names: Sequence[str], expressions: Sequence[pc.Expression]) -> pa.Table:
    """The table of the expressions' values, in the calling thread."""
    project = acero.Declaration(
        "project", acero.ProjectNodeOptions(list(expressions), list(names)), [table_source(table)]
    )
    return project.to_table(use_threads=False)


def project_schema(
    schema: pa.Schema, names: Sequence[str], expressions: Sequence[pc.Expression], what: str
) -> pa.Schema:
    """The schema of the expressions over `schema`; UsageError where they do not fit it."""
    for expression in expressions:
        _check_travels(expression, what)
    try:
        return plain_schema(project_table(schema.empty_table(), names, expressions).schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise arrow_error(error, schema, what) from error


def check_filter(schema: pa.Schema, expression: pc.Expression, what: str) -> None:
    """UsageError unless the expression is boolean over `schema`."""
    _check_travels(expression, what)
    try:
        acero.Declaration("filter", acero.FilterNodeOptions(expression), [table_source(schema.empty_table())]).to_table(
            use_threads=False
        )
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise arrow_error(error, schema, what) from error


def columns_used(expression: pc.Expression, schema: pa.Schema) -> frozenset[str]:
    """The columns of `schema` without which the expression cannot be computed."""
    text = str(expression)
    if text in schema.names and expression.equals(pc.field(text)):
        return frozenset([text])
    # A name that is not in the text is not used; one that is may be part of another name or of a literal.
    return frozenset(name for name in schema.names if name in text and not _binds_without(expression, schema, name))


def _binds_without(expression: pc.Expression, schema: pa.Schema, name: str) -> bool:
    rest = pa.schema([field for field in schema if field.name != name])
    try:
        project_table(rest.empty_table(), ["value"], [expression])
    except pa.ArrowException:
        return False
    return True


def _check_travels(expression: pc.Expression, what: str) -> None:
    if not isinstance(expression, pc.Expression):
        raise UsageError(
            f"{what}: takes a pyarrow.compute.Expression such as pc.field('x') > 1, not {type(expression).__name__}"
        )
    try:
        pickle.dumps(expression)
    except pa.ArrowException as error:
        raise UsageError(f"{what}: the expression {expression} cannot be sent to agents; name its columns") from error
