"""Splitting an aggregation in two: partial aggregates per task before the shuffle, final ones at the owner after it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.columns import plain_schema
from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.expressions import project_schema
from sabot.dataflow.grouping import aggregate_name, target_columns
from sabot.dataflow.stage import Aggregate, Aggregation, Project

# What each aggregate's partial results are put together by.
_FINAL_FUNCTION = {
    "sum": "sum",
    "count": "sum",
    "count_all": "sum",
    "min": "min",
    "max": "max",
    "any": "any",
    "all": "all",
    "product": "product",
}


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
    halves = _Halves(keys, schema)
    for aggregation in aggregations:
        if not halves.add(aggregation):
            return None
    split = halves.split()
    return split if _same_schema(split, keys, aggregations, schema) else None


class _Halves:
    """Gathers the partial aggregates that the aggregations need, each once, and how they are put together."""

    def __init__(self, keys: tuple[str, ...], schema: pa.Schema) -> None:
        self._keys = keys
        self._schema = schema
        self._casts: dict[str, pc.Expression] = {}
        self._partials: dict[str, Aggregation] = {}
        self._finals: dict[str, Aggregation] = {}
        self._names = list(keys)
        self._expressions = [pc.field(key) for key in keys]

    def add(self, aggregation: Aggregation) -> bool:
        """False where the aggregate cannot be split."""
        target, function = target_columns(aggregation[0]), aggregation[1].removeprefix("hash_")
        if len(aggregation) > 2 and aggregation[2] is not None:
            return False
        if function == "mean" and len(target) == 1:
            value = self._mean(target[0])
        elif function in _FINAL_FUNCTION and len(target) == (0 if function == "count_all" else 1):
            # pyarrow rounds a decimal product at each step, so that its answer depends on the order of the rows.
            if function == "product" and pa.types.is_decimal(self._schema.field(target[0]).type):
                return False
            value = self._put_together(target, function)
        else:
            return False
        if value is None:
            return False
        self._names.append(aggregate_name(aggregation))
        self._expressions.append(value)
        return True

    def _put_together(self, target: tuple[str, ...], function: str) -> pc.Expression:
        partial = "_".join([*target, function])
        self._partials[partial] = (target[0] if target else (), function)
        final = _FINAL_FUNCTION[function]
        self._finals[f"{partial}_{final}"] = (partial, final)
        return pc.field(f"{partial}_{final}")

    def _mean(self, column: str) -> pc.Expression | None:
        kind = self._schema.field(column).type
        if pa.types.is_decimal(kind):
            return None
        summed = column
        if not pa.types.is_floating(kind):
            # pyarrow's mean of integers adds them up as float64, where their sum would overflow.
            summed = f"{column} as double"
            if summed in self._schema.names:
                return None
            self._casts[summed] = pc.field(column).cast(pa.float64(), safe=False)
        count = self._put_together((column,), "count").cast(pa.float64())
        return pc.divide(self._put_together((summed,), "sum"), count)

    def split(self) -> SplitAggregation:
        """The halves. Where their columns' names collide, pyarrow refuses them as ambiguous."""
        partials = tuple(self._partials.values())
        used = dict.fromkeys([*self._keys, *(c for target, *_ in partials for c in target_columns(target))])
        plain = [name for name in used if name not in self._casts]
        before = None
        if self._casts:
            expressions = [*(pc.field(name) for name in plain), *self._casts.values()]
            before = Project(names=(*plain, *self._casts), expressions=tuple(expressions))
        return SplitAggregation(
            before=before,
            partial=Aggregate(keys=self._keys, aggregations=partials),
            final=Aggregate(
                keys=self._keys,
                aggregations=tuple(self._finals.values()),
                finish=Project(names=tuple(self._names), expressions=tuple(self._expressions)),
            ),
        )


def _same_schema(
    split: SplitAggregation, keys: tuple[str, ...], aggregations: tuple[Aggregation, ...], schema: pa.Schema
) -> bool:
    """Whether both ways give the same names and types: not for every type, nor where names of columns collide."""
    rows = schema.empty_table()
    whole = apply_table_step(Aggregate(keys=keys, aggregations=aggregations), [rows])
    try:
        if split.before is not None:
            rows = project_schema(schema, split.before.names, split.before.expressions, "mean").empty_table()
        halves = apply_table_step(split.final, [apply_table_step(split.partial, [rows])])
    except pa.ArrowException:
        return False
    return bool(plain_schema(halves.schema).equals(plain_schema(whole.schema)))
