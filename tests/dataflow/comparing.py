"""Comparing answers with pyarrow's: order aside unless it is asked for, floats within 1e-9 relative."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from sabot.dataflow.columns import plain_schema


def assert_same_rows(answer: pa.Table, expected: pa.Table, *, ordered: bool = False) -> None:
    """The same names, types and rows, each as often."""
    assert answer.schema.equals(plain_schema(expected.schema)), f"{answer.schema} is not {expected.schema}"
    got, wanted = _rows(answer), _rows(expected)
    if not ordered:
        got, wanted = sorted(got, key=_order), sorted(wanted, key=_order)
    assert len(got) == len(wanted), f"{len(got)} rows instead of {len(wanted)}"
    for row, wanted_row in zip(got, wanted, strict=True):
        assert all(map(_same, row, wanted_row)), f"{row} is not {wanted_row}"


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _order(row: tuple[Any, ...]) -> tuple[str, ...]:
    # Floats sort by their first digits, so that a rounding error does not change the order.
    return tuple(f"{value:.5e}" if isinstance(value, float) else repr(value) for value in row)


def _same(value: object, wanted: object) -> bool:
    if isinstance(value, dict) and isinstance(wanted, dict):
        return value.keys() == wanted.keys() and all(_same(value[name], wanted[name]) for name in value)
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(_same, value, wanted))
    if isinstance(value, float) and isinstance(wanted, float):
        return (math.isnan(value) and math.isnan(wanted)) or math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-9)
    return value == wanted
