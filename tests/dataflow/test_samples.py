"""Samples: how many rows they have, that they come again with their seed, and that every row may be in them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.dataflow.repeatable import repeatable_stages
from sabot.dataflow.sampling import Draws
from sabot.dataflow.stage import Draw
from sabot.errors import UsageError
from tests.dataflow.interpreter import InterpreterSession

TABLE = pa.table({"x": range(2000), "draw": [str(row) for row in range(2000)]})


def sample(*arguments: Any, pieces: int = 3, morsel_rows: int = 500, **named: Any) -> pa.Table:
    return (
        InterpreterSession(pieces=pieces, morsel_rows=morsel_rows)
        .from_table(TABLE)
        .sample(*arguments, **named)
        .to_table()
    )


def test_a_fraction_has_about_that_many_rows_unchanged() -> None:
    rows = sample(0.25, seed=1)
    assert 400 < rows.num_rows < 600
    assert rows.schema.equals(TABLE.schema)
    assert rows.equals(TABLE.take(rows["x"]))
    assert sample(0.0, seed=1).num_rows == 0
    assert sample(1.0, seed=1).num_rows == 2000


def test_num_rows_is_exact_and_each_row_is_there_once() -> None:
    rows = sample(num_rows=100, seed=1)
    assert rows.num_rows == len(rows["x"].unique()) == 100
    assert rows.schema.equals(TABLE.schema)
    assert sample(num_rows=5000, seed=1).num_rows == 2000
    assert sample(num_rows=0, seed=1).num_rows == 0


@pytest.mark.parametrize("arguments", [{"fraction": 0.1}, {"num_rows": 50}])
def test_the_same_seed_gives_the_same_rows_however_they_are_cut(arguments: dict[str, Any]) -> None:
    rows = {tuple(sample(**arguments, seed=7, morsel_rows=size)["x"].to_pylist()) for size in (3, 100, 2000)}
    assert len(rows) == 1
    assert tuple(sample(**arguments, seed=8)["x"].to_pylist()) not in rows


def test_a_dataset_without_a_seed_gives_the_same_sample_again() -> None:
    dataset = InterpreterSession().from_table(TABLE).sample(0.1)
    assert dataset.to_table().equals(dataset.to_table())
    other = InterpreterSession().from_table(TABLE).sample(0.1)
    assert not dataset.to_table().equals(other.to_table())


def test_every_row_is_as_likely() -> None:
    counts = Counter(row for seed in range(40) for row in sample(num_rows=500, seed=seed)["x"].to_pylist())
    by_task = [sum(counts[row] for row in range(start, start + 500)) for start in range(0, 2000, 500)]
    assert all(4600 < count < 5400 for count in by_task)


def test_numbers_of_a_task_do_not_depend_on_its_batches_and_differ_between_tasks() -> None:
    step = Draw(name="u", seed=3)
    whole = Draws(step, 0).next(200_000)
    draws = Draws(step, 0)
    cut = [draws.next(rows).to_pylist() for rows in (1, 65_535, 65_537, 0, 68_927)]
    assert whole.to_pylist() == [number for numbers in cut for number in numbers]
    assert Draws(step, 1).next(10).to_pylist() != whole.slice(0, 10).to_pylist()
    assert 0.49 < pc.mean(whole).as_py() < 0.51


def test_a_stage_that_samples_is_not_repeatable() -> None:
    session = InterpreterSession()
    session.from_table(TABLE).sample(0.5).group_by("x").aggregate([]).to_table()
    assert repeatable_stages(session.plans[-1]) == frozenset()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "one of them"),
        ({"fraction": 0.5, "num_rows": 3}, "one of them"),
        ({"fraction": 1.5}, "from 0 to 1"),
        ({"num_rows": -1}, "from 0 on"),
        ({"num_rows": 1.0}, "from 0 on"),
        ({"fraction": 0.5, "seed": "x"}, "seed is an int"),
    ],
)
def test_faulty_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        InterpreterSession().from_table(TABLE).sample(**arguments)
