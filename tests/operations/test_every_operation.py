"""Every operation of `Dataset`, on tables that hypothesis makes, over one, two and four agents, against pyarrow.

`--examples=N` tries that many cases of each in place of a few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings

from sabot.dataflow.dataset import Dataset

from .arena import Arena, Operation, open_arena
from .exits import EXITS
from .files import FILES
from .groups import AGGREGATIONS, GROUPS, OTHER_FUNCTIONS
from .joins import JOINS
from .rows import ROWS
from .sorts import SORTS

OPERATIONS = (*ROWS, *JOINS, *GROUPS, *SORTS, *FILES, *EXITS)
PUBLIC = {name for name in vars(Dataset) if not name.startswith("_")} | {"__arrow_c_stream__"}


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda count: f"{count} agents")
def arena(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with open_arena(request.param, tmp_path_factory.mktemp("arena")) as running:
        yield running


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The public names of Dataset that the test has used."""
    used: set[str] = set()

    def counted(name: str, method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            used.add(name)
            return method(*arguments, **options)

        return call

    for name in PUBLIC:
        found = vars(Dataset)[name]
        is_property = isinstance(found, property)
        monkeypatch.setattr(Dataset, name, property(counted(name, found.fget)) if is_property else counted(name, found))
    return used


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_operation_answers_as_pyarrow(
    arena: Arena, operation: Operation, called: set[str], pytestconfig: pytest.Config
) -> None:
    @settings(max_examples=pytestconfig.getoption("--examples"))
    @given(operation.cases)
    def any_case(case: Any) -> None:
        operation.check(arena, case)

    any_case()
    assert called >= operation.methods


_SHUFFLES: dict[str, Callable[[Dataset], Dataset]] = {
    "grouping": lambda rows: rows.group_by("k").aggregate([("x", "sum")]),
    "join": lambda rows: rows.join(rows, "x", right_suffix="_r"),
    "sort": lambda rows: rows.sort_by("x"),
    "repartition": lambda rows: rows.repartition("x"),
    "union": lambda rows: rows.union(rows).unique(),
}


@pytest.mark.parametrize("operation", _SHUFFLES)
def test_rows_of_each_agent_go_to_each_other(arena: Arena, operation: str) -> None:
    table = pa.table({"k": [number % 7 for number in range(500)], "x": range(500)})
    with _SHUFFLES[operation](arena.session.from_table(table)).run() as result:
        shuffle = result.receipt.shuffles[-1]
        assert shuffle.num_partitions > 1
        assert (shuffle.wire_bytes > 0) == (arena.agents > 1)


def test_a_sort_of_a_sort_is_the_second_with_equal_rows_as_the_first_left_them(arena: Arena) -> None:
    table = pa.table({"k": [number % 7 for number in range(500)], "x": range(500)})
    twice = arena.session.from_table(table).sort_by([("x", "descending")]).sort_by("k")
    arena.same(twice, table.sort_by([("x", "descending")]).sort_by("k"), ordered=True)


def test_every_public_operation_of_a_dataset_is_among_them() -> None:
    used = set().union(*(operation.methods for operation in OPERATIONS))
    assert used == PUBLIC


def test_every_aggregate_of_pyarrow_is_among_them() -> None:
    grouped = {name.removeprefix("hash_") for name in pc.list_functions() if name.startswith("hash_")}
    known = {name for name in grouped if not name.startswith("sabot_")}  # our own halves of them
    assert {one.function for one in AGGREGATIONS} | OTHER_FUNCTIONS == known
