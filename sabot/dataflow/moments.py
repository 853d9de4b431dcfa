"""Variance, stddev, skew and kurtosis out of moments, which tasks make of their rows and an owner puts together.

The moments are our own aggregates in Arrow's registry (sabot/native/operators/moments.h): `sabot_moments_2` for a
variance, `sabot_moments_4` for all four. The formulas are pyarrow's.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.aggregate_options import SpreadRules

MOMENTS_OF = {
    "variance": "sabot_moments_2",
    "stddev": "sabot_moments_2",
    "skew": "sabot_moments_4",
    "kurtosis": "sabot_moments_4",
}


def moments_of_one(value: pc.Expression, kind: pa.StructType) -> pc.Expression:
    """The moments, of type `kind`, of each row's one value."""
    zero = pc.coalesce(value - value, 0.0)  # but of what is not finite, which has no spread in pyarrow either
    columns = [pc.is_valid(value).cast("int64"), pc.coalesce(value, 0.0), *(zero,) * (kind.num_fields - 2)]
    return pc.make_struct(*columns, field_names=[field.name for field in kind])


def spread(function: str, moments: pc.Expression, rules: SpreadRules) -> pc.Expression:
    """What `function` makes of final moments; null where there are too few values, nulls not looked at."""
    powers = 2 if function in ("variance", "stddev") else 4
    count, rows = pc.struct_field(moments, 0), pc.struct_field(moments, 0).cast("double")
    sums = [pc.struct_field(moments, 2 + power) for power in range(powers)]
    offset = pc.divide(sums[0], rows)  # the mean's distance from where the sums are taken about
    # Squares that pass what a double holds have an infinite sum, as in pyarrow: no infinity is taken from another.
    huge = pc.is_inf(sums[1]) & pc.is_finite(sums[0])
    second = pc.if_else(huge, sums[1], sums[1] - offset * sums[0])
    second = pc.if_else(second < 0.0, 0.0, second)
    match function:
        case "variance" | "stddev":
            value = pc.divide(second, rows - float(rules.ddof))
            value = value if function == "variance" else pc.sqrt(value)
        case "skew":
            value = _skew(rows, sums, offset, second, rules)
        case _:
            value = _kurtosis(rows, sums, offset, second, rules)
    return pc.if_else(count >= rules.values_min(function), value, pc.scalar(None))


def _skew(
    rows: pc.Expression, sums: list[pc.Expression], offset: pc.Expression, second: pc.Expression, rules: SpreadRules
) -> pc.Expression:
    third = sums[2] - offset * (sums[1] * 3.0 - offset * offset * rows * 2.0)
    variance = pc.divide(second, rows)
    biased = pc.divide(pc.divide(third, rows), variance * pc.sqrt(variance))
    return biased if rules.biased else pc.divide(biased * pc.sqrt(rows * (rows - 1.0)), rows - 2.0)


def _kurtosis(
    rows: pc.Expression, sums: list[pc.Expression], offset: pc.Expression, second: pc.Expression, rules: SpreadRules
) -> pc.Expression:
    squared = offset * offset
    fourth = sums[3] - offset * sums[2] * 4.0 + squared * (sums[1] * 6.0 - squared * rows * 3.0)
    variance = pc.divide(second, rows)
    biased = pc.divide(pc.divide(fourth, rows), variance * variance) - 3.0
    if rules.biased:
        return biased
    return pc.divide((rows - 1.0) * ((rows + 1.0) * biased + 6.0), (rows - 2.0) * (rows - 3.0))
