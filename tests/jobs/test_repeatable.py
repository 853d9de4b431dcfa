"""Stages that are replayed without a proof are those whose rows cannot come out otherwise."""

from __future__ import annotations

import pytest

from sabot.dataflow.repeatable import repeatable_stages
from sabot.dataflow.stage import HashShuffle, Head, JobPlan, ResultOutput, ShuffleInput, Sort, Step

from .job_world import JOB_ID, scan, stage


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
