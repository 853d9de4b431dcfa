"""The rows of a stage that agents hold which leave the job: they own the partitions no more, and send them on. Pure."""

from __future__ import annotations

from sabot.agent.coordination.stage_run import StageRun
from sabot.dataflow.stage import ResultOutput


def hand_over(run: StageRun, agent: int, partitions: frozenset[int]) -> None:
    """The agent, whose partitions these were, holds what committed attempts sent to them."""
    had = [state.lacks for state in run.tasks]
    run.lose(partitions)
    for state, lacked in zip(run.tasks, had, strict=True):
        state.hand_over(agent, state.lacks - lacked)


def forget(run: StageRun, agent: int) -> None:
    """The agent is gone, with what it held."""
    for state in run.tasks:
        state.forget(agent)


def rests_on(run: StageRun, agent: int) -> bool:
    """Whether the agent holds rows that it is to send on, or has a part of the answer."""
    keeps = isinstance(run.stage.output, ResultOutput)
    return any(
        state.rests_on(agent, run.todo.get(task, frozenset()), keeps=keeps) for task, state in enumerate(run.tasks)
    )
