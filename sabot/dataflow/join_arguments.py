"""The arguments of `Dataset.join`: checked when it is called, and against the columns of both sides by its node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, get_args

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.columns import ambiguous_column, check_keys, names_list
from sabot.dataflow.expressions import check_filter, columns_used
from sabot.dataflow.stage import Join, JoinType
from sabot.errors import UsageError


def join_step(
    keys: str | Sequence[str],
    right_keys: str | Sequence[str] | None,
    join_type: str,
    *,
    suffixes: tuple[str | None, str | None],
    coalesce_keys: bool,
    filter_expression: Any,
) -> Join:
    """The step that these arguments ask for."""
    if join_type not in get_args(JoinType):
        known = ", ".join(repr(kind) for kind in get_args(JoinType))
        raise UsageError(f"join: there is no join_type {join_type!r}; there are {known}")
    if filter_expression is not None and not isinstance(filter_expression, pc.Expression):
        raise UsageError(
            "join: filter_expression= takes a pyarrow.compute.Expression over the columns of both sides, "
            f"not {type(filter_expression).__name__}"
        )
    left_names = names_list(keys, "join: keys=")
    return Join(
        keys=left_names,
        right_keys=left_names if right_keys is None else names_list(right_keys, "join: right_keys="),
        join_type=cast(JoinType, join_type),
        left_suffix=suffixes[0],
        right_suffix=suffixes[1],
        coalesce_keys=coalesce_keys,
        filter_expression=filter_expression,
    )


def check_join(step: Join, left: pa.Schema, right: pa.Schema) -> None:
    """UsageError unless the step's keys and filter fit the columns of the two sides."""
    keys, right_keys = step.keys, step.right_keys
    if not keys or len(keys) != len(right_keys):
        raise UsageError(f"join: takes as many right_keys as keys, and at least one, not {keys} and {right_keys}")
    check_keys(keys, left, "join")
    check_keys(right_keys, right, "join: right side")
    for key, right_key in zip(keys, right_keys, strict=True):
        kind, right_kind = left.field(key).type, right.field(right_key).type
        if _value_type(kind) != _value_type(right_kind):
            raise UsageError(
                f"join: key {key!r} is of type {kind}, key {right_key!r} of the right side of type {right_kind}; "
                "cast one of them with append_column"
            )
        coalesced = step.coalesce_keys and step.join_type == "full outer"
        if coalesced and kind != right_kind and pa.types.is_dictionary(kind) and pa.types.is_dictionary(right_kind):
            raise UsageError(
                f"join: keys {key!r} of type {kind} and {right_key!r} of type {right_kind} cannot become one column of "
                f"a full outer join; cast them to {kind.value_type}, or pass coalesce_keys=False"
            )
    if step.filter_expression is not None:
        _check_filter(step.filter_expression, left, right)


def _check_filter(expression: pc.Expression, left: pa.Schema, right: pa.Schema) -> None:
    """A name that both sides have says not whose column is meant; pyarrow refuses it, too."""
    what = "join: filter_expression"
    fields = [*left, *right]
    first_of_name = pa.schema({field.name: field for field in reversed(fields)}.values())
    check_filter(first_of_name, expression, what)
    names = [field.name for field in fields]
    for name in sorted(columns_used(expression, first_of_name)):
        if names.count(name) > 1:
            raise ambiguous_column(name, what)


def _value_type(kind: pa.DataType) -> pa.DataType:
    """Dictionaries join by their values, with columns that have those values as they are, too."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind
