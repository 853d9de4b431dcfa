"""A job's plan with what its stages did when it ran, as text, and for rich as a table with colours."""

from __future__ import annotations

from typing import Self

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sabot.client.receipt import StageStats, Stats, format_bytes
from sabot.dataflow.explain import explain_job
from sabot.dataflow.stage import JobPlan

_SKEWED = 2.0  # a stage is shown so from where its largest part has twice the mean


class Explanation(str):
    """The text; a prompt shows it as it stands, and `rich.print` with the table."""

    __slots__ = ("stats",)
    stats: Stats

    def __new__(cls, plan: JobPlan, stats: Stats) -> Self:
        measured = {stage.stage_id: measured_text(stage) for stage in stats.stages}
        lost = f", without {', '.join(stats.agents_lost)}, lost on the way" if stats.agents_lost else ""
        text = f"{explain_job(plan, measured=measured)}\nthe whole job took {stats.elapsed_s:.2f} s{lost}\n"
        made = super().__new__(cls, text)
        made.stats = stats
        return made

    def __repr__(self) -> str:
        return str(self)

    def __rich__(self) -> Group:
        return Group(Text(str(self)), stats_table(self.stats))


def measured_text(stage: StageStats) -> str:
    """What a stage did, in a line."""
    slots = f"{stage.slots_used} slot" + ("" if stage.slots_used == 1 else "s")
    tasks = f"{stage.tasks_done} task" + ("" if stage.tasks_done == 1 else "s")
    again = f", {stage.tasks_redone} redone" if stage.tasks_redone else ""
    again += f", {stage.second_attempts} a second time beside the first" if stage.second_attempts else ""
    parts = [
        f"{stage.elapsed_s:.2f} s in {slots}: {tasks}{again} of {stage.task_s:.2f} s together",
        f"{stage.rows_in:,} rows in, {stage.rows_out:,} out",
    ]
    if stage.wire_bytes or stage.local_bytes:
        parts.append(f"{format_bytes(stage.wire_bytes)} over the wire, {format_bytes(stage.local_bytes)} local")
    if stage.spilled_bytes:
        parts.append(f"{format_bytes(stage.spilled_bytes)} of it read from disk")
    if stage.rows_quarantined:
        parts.append(f"{stage.rows_quarantined:,} rows quarantined")
    if stage.skew:
        parts.append(f"the largest part has {stage.skew:.1f} times the mean")
    return "; ".join(parts)


def stats_table(stats: Stats) -> Table:
    """A row for each stage."""
    table = Table(box=box.SIMPLE_HEAD, title=f"{stats.elapsed_s:.2f} s")
    table.add_column("stage")
    for name in ("tasks", "redone", "rows in", "rows out", "wire", "local", "time", "task time", "slots", "skew"):
        table.add_column(name, justify="right")
    for stage in stats.stages:
        table.add_row(
            Text(f"{stage.stage_id}: {stage.label}"),
            f"{stage.tasks_done:,}",
            Text(f"{stage.tasks_redone:,}", style="yellow" if stage.tasks_redone else ""),
            f"{stage.rows_in:,}",
            f"{stage.rows_out:,}",
            format_bytes(stage.wire_bytes),
            format_bytes(stage.local_bytes),
            f"{stage.elapsed_s:.2f} s",
            f"{stage.task_s:.2f} s",
            str(stage.slots_used),
            Text(f"{stage.skew:.1f}", style="yellow" if stage.skew >= _SKEWED else ""),
        )
    return table
