"""When a stage has given all the rows that anyone will take: those of a head over rows in no order. Pure."""

from __future__ import annotations

from sabot.dataflow.stage import HashShuffle, Head, Sort, Stage

NO_ATTEMPT = -1
"""In a list of attempts by task: this task has none, and needs none."""


def rows_wanted(stage: Stage) -> int | None:
    """So many rows of the stage's tasks together are enough, whichever they are; None where all are wanted."""
    gathers = isinstance(stage.output, HashShuffle) and not stage.output.keys
    if not gathers or not stage.steps or any(isinstance(step, Sort) for step in stage.steps):
        return None
    last = stage.steps[-1]
    return last.rows if isinstance(last, Head) else None
