"""Stages that are replayed without a proof are those whose rows cannot come out otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.dataflow.repeatable import repeatable_stages
from sabot.dataflow.stage import (
    Aggregate,
    HashShuffle,
    Head,
    JobPlan,
    Join,
    Project,
    ResultOutput,
    ShuffleInput,
    Sort,
    Step,
)

from .job_world import JOB_ID, scan, stage

COUNT = Aggregate(keys=("g",), aggregations=(("n", "count"),))


@pytest.mark.parametrize(
    ("steps", "repeatable"),
    [
        ((), True),
        ((Sort(sorting=(("v", "ascending"),)),), True),
        ((Head(rows=3),), False),
        ((Sort(sorting=(("v", "ascending"),)), Head(rows=3)), False),  # which of equal rows it takes is open
    ],
)
def test_head_is_not_repeated_even_after_a_sort(steps: tuple[Step, ...], repeatable: bool) -> None:
    plan = JobPlan(
        job_id=JOB_ID,
        stages=(
            stage(0, scan(10), HashShuffle(keys=("k",))),
            stage(1, ShuffleInput(stage_ids=(0,)), HashShuffle(keys=("k",)), steps),
            stage(2, ShuffleInput(stage_ids=(1,)), ResultOutput()),
        ),
    )
    assert (1 in repeatable_stages(plan)) == repeatable


def joined(
    filter_expression: pc.Expression | None, key: str, *, join_type: Any = "full outer", last: Step = COUNT
) -> bool:
    """Whether a stage is repeatable that joins rows with groups and shuffles them by `key`."""
    groups = replace(
        stage(1, scan(10), HashShuffle(keys=("g",)), (last,)), schema=pa.schema([("g", pa.int64()), ("n", pa.int64())])
    )
    join = Join(keys=("k",), right_keys=("g",), join_type=join_type, filter_expression=filter_expression)
    plan = JobPlan(
        job_id=JOB_ID,
        stages=(
            stage(0, scan(10), HashShuffle(keys=("k",))),
            groups,
            replace(
                stage(2, ShuffleInput(stage_ids=(0, 1)), HashShuffle(keys=(key,)), (join,)),
                schema=pa.schema([("k", pa.int64()), ("v", pa.int64()), ("n", pa.int64())]),
            ),
            stage(3, ShuffleInput(stage_ids=(2,)), ResultOutput()),
        ),
    )
    return 2 in repeatable_stages(plan)


def test_join_is_repeated_by_keys_that_no_aggregate_of_either_side_made() -> None:
    assert joined(None, "k") and joined(None, "v")
    assert not joined(None, "n")
    # The key of a full outer join is that of the right side where there is no left row.
    made = replace(COUNT, finish=Project(names=("g", "n"), expressions=(pc.field("g").cast(pa.int64()), pc.field("n"))))
    assert not joined(None, "k", last=made)
    assert joined(None, "k", last=made, join_type="left outer")


def test_join_with_a_filter_over_aggregates_is_not_repeated() -> None:
    assert not joined(pc.field("v") < pc.field("n"), "k")
