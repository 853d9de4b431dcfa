"""Splitting an aggregation in two: partial aggregates per task before the shuffle, final ones at the owner after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.columns import plain_schema
from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.expressions import project_schema
from sabot.dataflow.grouping import aggregate_name, target_columns
from sabot.dataflow.partial_aggregates import NameCollision, PartialAggregates, each_row
from sabot.dataflow.stage import Aggregate, Aggregation, Project
from sabot.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitAggregation:
    """`before` and `partial` run per task before the shuffle by the keys, `final` once per partition after it."""

    before: Project | None
    partial: Aggregate
    final: Aggregate


def split_aggregation(
    keys: tuple[str, ...], aggregations: tuple[Aggregation, ...], schema: pa.Schema
) -> SplitAggregation | None:
    """The aggregation over rows of `schema` in two halves; None where only the whole gives pyarrow's answer."""
    made_of = PartialAggregates(schema, grouped=bool(keys))
    try:
        answers = [made_of.answer(aggregation) for aggregation in aggregations]
        known = [answer for answer in answers if answer is not None]
        if len(known) < len(answers):
            return None
        split = _halves(keys, aggregations, known, made_of)
        rows = _rows_before(split, schema)
        return _that_may_give_up(split, rows) if _same_schema(split, rows, keys, aggregations, schema) else None
    except (pa.ArrowException, NameCollision, UsageError):  # not every type has the expressions that are needed
        return None


def _halves(
    keys: tuple[str, ...],
    aggregations: tuple[Aggregation, ...],
    answers: list[pc.Expression],
    made_of: PartialAggregates,
) -> SplitAggregation:
    """The halves. Where their columns' names collide, pyarrow refuses them as ambiguous."""
    partials = tuple(made_of.partials.values())
    partial_keys = keys if made_of.distinct is None or made_of.distinct in keys else (*keys, made_of.distinct)
    used = dict.fromkeys([*partial_keys, *(column for target, *_ in partials for column in target_columns(target))])
    before = None
    if made_of.casts:
        plain = [name for name in used if name not in made_of.casts]
        expressions = [*(pc.field(name) for name in plain), *made_of.casts.values()]
        before = Project(names=(*plain, *made_of.casts), expressions=tuple(expressions))
    finish = Project(
        names=(*keys, *(aggregate_name(aggregation) for aggregation in aggregations)),
        expressions=(*(pc.field(key) for key in keys), *answers),
    )
    return SplitAggregation(
        before=before,
        partial=Aggregate(keys=partial_keys, aggregations=partials),
        final=Aggregate(keys=keys, aggregations=tuple(made_of.finals.values()), finish=finish),
    )


def _rows_before(split: SplitAggregation, schema: pa.Schema) -> pa.Schema:
    if split.before is None:
        return schema
    return project_schema(schema, split.before.names, split.before.expressions, "mean")


def _same_schema(
    split: SplitAggregation,
    rows: pa.Schema,
    keys: tuple[str, ...],
    aggregations: tuple[Aggregation, ...],
    schema: pa.Schema,
) -> bool:
    """Whether both ways give the same names and types: not for every type, nor where names of columns collide."""
    whole = apply_table_step(Aggregate(keys=keys, aggregations=aggregations), [schema.empty_table()])
    halves = apply_table_step(split.final, [apply_table_step(split.partial, [rows.empty_table()])])
    return bool(plain_schema(halves.schema).equals(plain_schema(whole.schema)))


def _that_may_give_up(split: SplitAggregation, rows: pa.Schema) -> SplitAggregation:
    """With the form in which rows go on where grouping them does not pay; without keys there is one group anyway."""
    partial = split.partial
    if not partial.keys:
        return split
    names = tuple(apply_table_step(partial, [rows.empty_table()]).schema.names)
    form = Project(names=names, expressions=each_row(partial, rows))
    planned = plain_schema(apply_table_step(partial, [rows.empty_table()]).schema)
    if not project_schema(rows, form.names, form.expressions, "aggregate").equals(planned):
        return split
    return replace(split, partial=replace(partial, each_row=form))
