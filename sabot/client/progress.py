"""Shows a job's progress per stage while it runs: in a terminal, on standard error, and in a notebook; nowhere else."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sabot.client.receipt import StageStats, format_bytes


class ProgressView:
    """One bar per stage, for as long as the block lasts.

    `enabled`: None shows bars where standard error is a terminal or a notebook that can draw them (with ipywidgets),
    True always, False never. They stay when the job has ended.
    """

    def __init__(self, enabled: bool | None = None, *, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        shown = _draws(self._console) if enabled is None else enabled
        self._progress = self._bars() if shown else None
        self._tasks: dict[int, TaskID] = {}
        self._queue: TaskID | None = None

    def _bars(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            console=self._console,
        )

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def queued(self, jobs_ahead: int) -> None:
        """The job waits for its turn."""
        if self._progress is None:
            return
        if self._queue is None:
            self._queue = self._progress.add_task("queued", total=None, facts="")
        behind = "1 job" if jobs_ahead == 1 else f"{jobs_ahead} jobs"
        self._progress.update(self._queue, facts=f"behind {behind}")

    def update(self, stages: Sequence[StageStats]) -> None:
        """Takes the newest report; stages are known by their id."""
        if self._progress is None:
            return
        if self._queue is not None:
            self._progress.remove_task(self._queue)
            self._queue = None
        for stage in stages:
            facts = facts_of(stage)
            if stage.stage_id not in self._tasks:
                self._tasks[stage.stage_id] = self._progress.add_task(stage.label, total=None, facts="")
            total = stage.tasks_total or None
            self._progress.update(self._tasks[stage.stage_id], completed=stage.tasks_done, total=total, facts=facts)


def facts_of(stage: StageStats) -> str:
    """Rows, their rate, and what went over the wire."""
    rate = f", {stage.rows_out / stage.elapsed_s:,.0f} rows/s" if stage.elapsed_s > 0 and stage.rows_out else ""
    sent = f", {format_bytes(stage.wire_bytes)} over the wire" if stage.wire_bytes else ""
    redone = f", {stage.tasks_redone} redone" if stage.tasks_redone else ""
    return f"{stage.rows_out:,} rows{rate}{sent}{redone}"


def _draws(console: Console) -> bool:
    """A notebook without ipywidgets would be sent a warning for each job."""
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)
