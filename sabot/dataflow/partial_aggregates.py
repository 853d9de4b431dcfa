"""Which partial aggregates pyarrow's aggregates are made of, and how they are put together to the same answers."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.aggregate_options import NullRules, count_mode, null_rules, spread_rules
from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.grouping import aggregate_name, target_columns
from sabot.dataflow.moments import MOMENTS_OF, moments_of_one, spread
from sabot.dataflow.stage import Aggregate, Aggregation

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
    "one": "one",
    "first": "first",
    "last": "last",
    **{moments: moments for moments in MOMENTS_OF.values()},
}
# The answer for no values, where min_count allows that.
_OF_NOTHING = {"sum": 0, "product": 1, "any": False, "all": True}
_BY_ORDER = ("first", "last", "first_last")
_DISTINCT = ("count_distinct", "distinct")
_EXACT_SUM_DIGITS_MAX = 28  # of 10^10 such decimals the sum has 38 digits, which is what pyarrow keeps


class PartialAggregates:
    """Gathers the partial aggregates that some aggregates need, each once, and the final ones over them."""

    def __init__(self, schema: pa.Schema, *, grouped: bool) -> None:
        self.casts: dict[str, pc.Expression] = {}
        self.partials: dict[str, Aggregation] = {}
        self.finals: dict[str, Aggregation] = {}
        self.distinct: str | None = None  # a column by which the partial groups are told apart, too
        self._schema = schema
        self._grouped = grouped

    def answer(self, aggregation: Aggregation) -> pc.Expression | None:  # noqa: PLR0911 - one per kind of aggregate
        """The aggregate as an expression over the final ones; None where it cannot be put together of partial ones."""
        target, function = target_columns(aggregation[0]), aggregation[1].removeprefix("hash_")
        options = aggregation[2] if len(aggregation) > 2 else None
        if function == "count_all":
            return self._rows() if not target and options is None else None
        if len(target) != 1:
            return None
        (column,) = target
        if function == "count":
            return self._count(column, options)
        if function == "one":
            return self._value(column, function) if self._grouped and options is None else None
        if function in _DISTINCT:
            return self._distinct_values(column, aggregation)
        if function in MOMENTS_OF:
            return self._spread(column, function, options)
        rules = null_rules(options)
        if rules is None:
            return None
        if function == "mean":
            return self._mean(column, rules)
        if function in _BY_ORDER:
            return self._by_order(column, function, rules)
        if function == "min_max":
            ends = [self._ruled(column, end, rules) for end in ("min", "max")]
            return pc.make_struct(*ends, field_names=["min", "max"])
        # pyarrow rounds a decimal product at each step, so that its answer depends on the order of the rows.
        if function == "product" and pa.types.is_decimal(self._schema.field(column).type):
            return None
        return self._ruled(column, function, rules) if function in _FINAL_FUNCTION else None

    def _rows(self) -> pc.Expression:
        return self._put_together((), "count_all")

    def _valid(self, column: str) -> pc.Expression:
        return self._put_together((column,), "count")

    def _value(self, column: str, function: str) -> pc.Expression:
        return self._put_together((column,), function)

    def _by_order(self, column: str, function: str, rules: NullRules) -> pc.Expression | None:
        """The first of each task's first values: rows are in order within a task, and so are its partial groups."""
        if not self._grouped:
            if not rules.skip_nulls:  # a task without rows has a null that is nobody's first value
                return None
            ends = [self._or_null(column, end, self._value(column, end), rules) for end in ("first", "last")]
        else:  # pyarrow's grouped ones take no notice of min_count
            options = None if rules.skip_nulls else pc.ScalarAggregateOptions(skip_nulls=False, min_count=1)
            ends = [self._put_together((column,), end, options) for end in ("first", "last")]
        if function == "first_last":
            return pc.make_struct(*ends, field_names=["first", "last"])
        return ends[_BY_ORDER.index(function)]

    def _put_together(
        self, target: tuple[str, ...], function: str, options: pc.FunctionOptions | None = None
    ) -> pc.Expression:
        partial, final = "_".join([*target, function]), _FINAL_FUNCTION[function]
        more = () if options is None else (options,)
        self._add(self.partials, partial, (target[0] if target else (), function, *more))
        self._add(self.finals, f"{partial}_{final}", (partial, final, *more))
        return pc.field(f"{partial}_{final}")

    def _add(self, known: dict[str, Aggregation], name: str, aggregation: Aggregation) -> None:
        if known.setdefault(name, aggregation) != aggregation:
            raise NameCollision(name)

    def _count(self, column: str, options: pc.FunctionOptions | None) -> pc.Expression | None:
        match count_mode(options):
            case "only_valid":
                return self._valid(column)
            case "only_null":
                return pc.subtract(self._rows(), self._valid(column))
            case "all":
                return self._rows()
        return None

    def _distinct_values(self, column: str, aggregation: Aggregation) -> pc.Expression | None:
        """Partial groups by this column, too, leave each of its values once, for the final aggregate to look at."""
        # Without rows there are then no partial groups either, and without keys a count of them would be null, not 0.
        if self.distinct not in (None, column) or not self._grouped:
            return None
        self.distinct = column
        name = aggregate_name(aggregation)
        self._add(self.finals, name, (column, *aggregation[1:]))
        return pc.field(name)

    def _ruled(self, column: str, function: str, rules: NullRules) -> pc.Expression:
        value = self._value(column, function)
        if rules.min_count == 0 and function in _OF_NOTHING:
            kind = _type_of(function, self._schema.field(column), grouped=self._grouped)
            value = pc.coalesce(value, pc.scalar(pa.scalar(_OF_NOTHING[function]).cast(kind)))
        return self._or_null(column, function, value, rules)

    def _or_null(self, column: str, function: str, value: pc.Expression, rules: NullRules) -> pc.Expression:
        if not rules.skip_nulls:
            known = self._rows() == self._valid(column)
            if function == "any":  # one true is enough, whatever the nulls are
                known |= value
            elif function == "all":
                known |= ~value
            value = pc.if_else(known, value, pc.scalar(None))
        ignored = self._grouped and function in ("min", "max")  # pyarrow's grouped min and max take no notice of it
        if rules.min_count > 1 and not ignored:
            value = pc.if_else(self._valid(column) >= rules.min_count, value, pc.scalar(None))
        return value

    def _mean(self, column: str, rules: NullRules) -> pc.Expression | None:
        kind = self._schema.field(column).type
        if pa.types.is_decimal(kind):
            return self._decimal_mean(column, kind, rules)
        # pyarrow's mean of integers adds them up as float64, where their sum would overflow.
        summed = column if pa.types.is_floating(kind) else self._as_double(column)
        if summed is None:
            return None
        count = self._valid(column).cast(pa.float64())
        total = self._value(summed, "sum")
        if rules.min_count == 0:
            total = pc.coalesce(total, pc.scalar(0.0))
        return self._or_null(column, "mean", pc.divide(total, count), rules)

    def _as_double(self, column: str) -> str | None:
        """The column's name as float64, which it has before the partial half; None where another column has that."""
        if pa.types.is_float64(self._schema.field(column).type):
            return column
        name = f"{column} as double"
        if name in self._schema.names:
            return None
        self.casts[name] = pc.field(column).cast(pa.float64(), safe=False)
        return name

    def _spread(self, column: str, function: str, options: pc.FunctionOptions | None) -> pc.Expression | None:
        """Variance and the like, out of moments that are put together."""
        rules, numbers = spread_rules(function, options), self._as_double(column)
        if rules is None or numbers is None:
            return None
        value = spread(function, self._value(numbers, MOMENTS_OF[function]), rules)
        known = pc.scalar(True) if rules.skip_nulls else self._rows() == self._valid(column)
        return pc.if_else(known, value, pc.scalar(None))

    def _decimal_mean(self, column: str, kind: pa.DataType, rules: NullRules) -> pc.Expression | None:
        """The quotient with more digits than are left, and then rounded away from zero as pyarrow rounds it."""
        if kind.bit_width != 128 or kind.precision > _EXACT_SUM_DIGITS_MAX or rules.min_count == 0:
            return None
        total = self._value(column, "sum").cast(pa.decimal256(38, kind.scale))
        quotient = pc.divide(total, self._valid(column).cast(pa.decimal256(19, 0)))
        rounded = pc.round(quotient, ndigits=kind.scale, round_mode="half_towards_infinity").cast(kind)
        return self._or_null(column, "mean", rounded, rules)


class NameCollision(Exception):
    """Two different partial results would have one name."""


def each_row(step: Aggregate, schema: pa.Schema) -> tuple[pc.Expression, ...]:
    """The columns of a partial aggregation of `schema` where every row is a group of its own."""
    partial = apply_table_step(step, [schema.empty_table()]).schema
    values = [
        _of_one_row(target_columns(target), function, partial.field(len(step.keys) + position).type)
        for position, (target, function, *_) in enumerate(step.aggregations)
    ]
    return (*(pc.field(key) for key in step.keys), *values)


def _of_one_row(target: tuple[str, ...], function: str, kind: pa.DataType) -> pc.Expression:
    match function:
        case "count_all":
            return pc.scalar(pa.scalar(1, kind))
        case "count":
            return pc.is_valid(pc.field(target[0])).cast(kind)
        case "sum" | "product":
            return pc.field(target[0]).cast(kind, safe=False)
    if function in MOMENTS_OF.values():
        return moments_of_one(pc.field(target[0]), kind)
    return pc.field(target[0])


def _type_of(function: str, field: pa.Field, *, grouped: bool) -> pa.DataType:
    rows = pa.table({"key": pa.array([], pa.int8()), "value": pa.array([], field.type)})
    step = Aggregate(keys=("key",) if grouped else (), aggregations=(("value", function),))
    return apply_table_step(step, [rows]).schema.field(f"value_{function}").type
