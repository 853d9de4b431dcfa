"""Sorts by several keys with nulls at either end, by ranges and in one task, and the first rows of them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import strategies as st

from sabot.dataflow import sorting
from tests.dataflow.tables import chunked, shaped_tables
from tests.dataflow.test_sorting import decoded, sort_keys

from .arena import Arena, Operation


@st.composite
def _cases(draw: st.DrawFn) -> dict[str, Any]:
    table = draw(shaped_tables())
    return {"table": table, "given": draw(chunked(table)), "keys": draw(sort_keys()), "rows": draw(st.integers(0, 30))}


def _in_order(case: dict[str, Any]) -> pa.Table:
    table: pa.Table = case["table"]
    return table.take(pc.sort_indices(decoded(table.select(["k", "h", "n"])), sort_keys=case["keys"]))


def _by_ranges(arena: Arena, case: dict[str, Any]) -> None:
    arena.same(arena.session.from_table(case["given"]).sort_by(case["keys"]), _in_order(case), ordered=True)


def _by_one_task(arena: Arena, case: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "SORTED_BY_ONE_BYTES_MAX", 1 << 30)
        _by_ranges(arena, case)


def _head(arena: Arena, case: dict[str, Any]) -> None:
    first = arena.session.from_table(case["given"]).sort_by(case["keys"]).head(case["rows"])
    arena.same(first, _in_order(case).slice(0, case["rows"]), ordered=True)


def _filtered(arena: Arena, case: dict[str, Any]) -> None:
    below = pc.field("i") < 2 * case["rows"]
    descending = arena.session.from_table(case["given"]).sort_by([("i", "descending")])
    expected = case["table"].sort_by([("i", "descending")])
    arena.same(descending.filter(below).select(["i", "p"]), expected.filter(below).select(["i", "p"]), ordered=True)


SORTS = (
    Operation(name="sort by ranges", methods=frozenset({"sort_by"}), cases=_cases(), check=_by_ranges),
    Operation(name="sort in one task", methods=frozenset({"sort_by"}), cases=_cases(), check=_by_one_task),
    Operation(name="head of a sort", methods=frozenset({"sort_by", "head"}), cases=_cases(), check=_head),
    Operation(name="filter of a sort", methods=frozenset({"sort_by", "filter"}), cases=_cases(), check=_filtered),
)
