"""What the options of an aggregate say: pyarrow compares and prints them, and shows no field of theirs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import pyarrow.compute as pc

CountMode = Literal["only_valid", "only_null", "all"]

_RULES = re.compile(r"ScalarAggregateOptions\(skip_nulls=(true|false), min_count=(\d+)\)")
_VARIANCE = re.compile(r"VarianceOptions\(ddof=(-?\d+), skip_nulls=(true|false), min_count=(\d+)\)")
_SKEW = re.compile(r"SkewOptions\(skip_nulls=(true|false), biased=(true|false), min_count=(\d+)\)")
_COUNT_MODES: tuple[CountMode, ...] = ("only_valid", "only_null", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class NullRules:
    """ScalarAggregateOptions: unless `skip_nulls` a null makes the answer null, as do fewer than `min_count` values."""

    skip_nulls: bool = True
    min_count: int = 1


def null_rules(options: pc.FunctionOptions | None) -> NullRules | None:
    """The rules; None where the options are not known to say just that."""
    if options is None:
        return NullRules()
    said = _RULES.fullmatch(str(options))
    if said is None:
        return None
    rules = NullRules(skip_nulls=said[1] == "true", min_count=int(said[2]))
    same = pc.ScalarAggregateOptions(skip_nulls=rules.skip_nulls, min_count=rules.min_count)
    return rules if options == same else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadRules:
    """VarianceOptions and SkewOptions; `ddof` is of the former and `biased` of the latter."""

    ddof: int = 0
    biased: bool = True
    skip_nulls: bool = True
    min_count: int = 0

    def values_min(self, function: str) -> int:
        """Fewer values have no answer."""
        known = {"skew": 1 if self.biased else 3, "kurtosis": 1 if self.biased else 4}
        return max(known.get(function, self.ddof + 1), self.min_count)


def spread_rules(function: str, options: pc.FunctionOptions | None) -> SpreadRules | None:
    """The rules of a variance, stddev, skew or kurtosis; None where the options are not known to say just that."""
    if options is None:
        return SpreadRules()
    if function in ("variance", "stddev"):
        said = _VARIANCE.fullmatch(str(options))
        if said is None:
            return None
        rules = SpreadRules(ddof=int(said[1]), skip_nulls=said[2] == "true", min_count=int(said[3]))
        same = pc.VarianceOptions(ddof=rules.ddof, skip_nulls=rules.skip_nulls, min_count=rules.min_count)
    else:
        said = _SKEW.fullmatch(str(options))
        if said is None:
            return None
        rules = SpreadRules(skip_nulls=said[1] == "true", biased=said[2] == "true", min_count=int(said[3]))
        same = pc.SkewOptions(skip_nulls=rules.skip_nulls, biased=rules.biased, min_count=rules.min_count)
    return rules if options == same else None


def count_mode(options: pc.FunctionOptions | None) -> CountMode | None:
    """What a count counts; None where the options are none of a count."""
    if options is None:
        return "only_valid"
    return next((mode for mode in _COUNT_MODES if options == pc.CountOptions(mode=mode)), None)
