"""Progress is shown in a terminal and nowhere else, unless asked for."""

from __future__ import annotations

import importlib.util
import io

import pytest
from rich.console import Console

from sabot.client.progress import ProgressView
from sabot.client.receipt import StageStats


def stage(done: int, rows: int) -> StageStats:
    return StageStats(
        stage_id=0, label="scan flights", tasks_total=4, tasks_done=done, rows_out=rows, wire_bytes=2048, elapsed_s=0.5
    )


def shown(enabled: bool | None, *, terminal: bool) -> str:
    """What is written for a stage that is reported twice."""
    written = io.StringIO()
    with ProgressView(enabled, console=Console(file=written, force_terminal=terminal, width=120)) as view:
        view.update([stage(1, 10)])
        view.update([stage(4, 1234)])
    return written.getvalue()


def test_a_terminal_shows_each_stage_with_its_tasks_rows_and_bytes() -> None:
    text = shown(None, terminal=True)
    for part in ("scan flights", "4/4", "1,234 rows, 2,468 rows/s, 2.0 KiB over the wire"):
        assert part in text


def test_a_notebook_shows_bars_where_it_can_draw_them(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Console(file=io.StringIO(), force_jupyter=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert ProgressView(console=notebook)._progress is None, "rich would warn that ipywidgets is missing"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert ProgressView(console=notebook)._progress is not None
    assert ProgressView(False, console=notebook)._progress is None


@pytest.mark.parametrize(("enabled", "terminal"), [(None, False), (False, True), (False, False)])
def test_nothing_is_written_elsewhere_or_when_switched_off(enabled: bool | None, terminal: bool) -> None:
    assert shown(enabled, terminal=terminal) == ""


def test_progress_can_be_asked_for_outside_a_terminal() -> None:
    assert "scan flights" in shown(True, terminal=False)
