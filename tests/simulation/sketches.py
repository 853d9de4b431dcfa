"""Plans and commands in one line of a trace."""

from __future__ import annotations

from sabot.agent.coordination import job_events as ev
from sabot.dataflow.stage import JobPlan


def sketch_of_plan(plan: JobPlan) -> str:
    """What each stage reads and gives."""
    return ", ".join(
        f"{stage.stage_id}: {type(stage.input).__name__} -> {type(stage.output).__name__}" for stage in plan.stages
    )


def sketch(command: ev.Command) -> str:
    """One line for a trace."""
    if isinstance(command, ev.Reown):
        return f"Reown {command.agent} epoch {command.table.epoch} owners {command.table.owners}"
    if isinstance(command, ev.CancelTask):
        return f"CancelTask {command.stage_id}.{command.task}#{command.attempt} on agent {command.agent}"
    if isinstance(command, ev.StartTask):
        inputs = ", ".join(f"{stage_id}: {list(attempts)}" for stage_id, attempts in command.inputs)
        task = f"{command.stage_id}.{command.task}#{command.attempt}"
        parts = "" if command.partitions is None else f" sending {sorted(command.partitions)}"
        share = getattr(command.split, "share", None)
        share_told = "" if share is None else f" share {share.index} of {share.count}"
        return f"StartTask {task} on agent {command.agent}{parts}{share_told}" + (
            f" reading {inputs}" if inputs else ""
        )
    return type(command).__name__ + (f" {command.agent}" if hasattr(command, "agent") else "")
