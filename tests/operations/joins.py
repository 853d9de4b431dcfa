"""Joins: of each type, by one key and by two, with differing names, suffixes, residual filters and copies of a side."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from tests.dataflow.join_oracle import JOIN_TYPES, join_options, pyarrow_join
from tests.dataflow.tables import chunked, join_sides

from .arena import Arena, Operation


@st.composite
def _cases(draw: st.DrawFn, join_type: str) -> dict[str, Any]:
    left, right = draw(join_sides())
    options = {**draw(join_options()), "join_type": join_type}
    if draw(st.booleans()):
        right = right.rename_columns({"k": "key", "h": "other"})
        options["right_keys"] = "key" if options["keys"] == "k" else ["key", "other"]
    return {
        "sides": (left, right),
        "given": (draw(chunked(left)), draw(chunked(right))),
        "options": options,
        "broadcast": draw(st.booleans()),
    }


def _check(arena: Arena, case: dict[str, Any]) -> None:
    session = arena.broadcasting if case["broadcast"] else arena.session
    left, right = (session.from_table(table) for table in case["given"])
    answer = left.join(right, **case["options"])
    assert case["broadcast"] or "broadcast" not in answer.explain()
    arena.same(answer, pyarrow_join(*case["sides"], **case["options"]))


def _itself(arena: Arena, table: pa.Table) -> None:
    dataset = arena.session.from_table(table)
    answer = dataset.join(dataset, "k", join_type="inner", right_suffix="_r")
    arena.same(answer, pyarrow_join(table, table, "k", join_type="inner", right_suffix="_r"))


JOINS = (
    *(
        Operation(name=f"{kind} join", methods=frozenset({"join", "explain"}), cases=_cases(kind), check=_check)
        for kind in JOIN_TYPES
    ),
    Operation(
        name="join with itself",
        methods=frozenset({"join"}),
        cases=join_sides().map(lambda sides: sides[0]),
        check=_itself,
    ),
)
