"""What the options of an aggregate say: pyarrow compares and prints them, and shows no field of theirs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import pyarrow.compute as pc

CountMode = Literal["only_valid", "only_null", "all"]

_RULES = re.compile(r"ScalarAggregateOptions\(skip_nulls=(true|false), min_count=(\d+)\)")
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


def count_mode(options: pc.FunctionOptions | None) -> CountMode | None:
    """What a count counts; None where the options are none of a count."""
    if options is None:
        return "only_valid"
    return next((mode for mode in _COUNT_MODES if options == pc.CountOptions(mode=mode)), None)
