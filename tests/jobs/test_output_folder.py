"""A dataset appears whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sabot.agent.output_folder import OutputFolder
from sabot.agent.task_output import hidden_folder
from sabot.errors import PeerError, UsageError

JOB = "ab" * 16


def written(folder: Path, *names: str) -> list[str]:
    hidden = hidden_folder(str(folder), JOB)
    (hidden / "attempt-0").mkdir()
    for name in names:
        (hidden / "attempt-0" / name).write_text(name)
    return [f"attempt-0/{name}" for name in names]


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_nothing_is_seen_before_publish_and_all_after(tmp_path: Path) -> None:
    target = OutputFolder(str(tmp_path / "out"), JOB)
    target.open()
    files = written(tmp_path / "out", "part-0", "part-1")
    assert names_in(tmp_path / "out") == [f".sabot-{JOB}"]
    target.publish(files)
    assert names_in(tmp_path / "out") == [f".sabot-{JOB}", "part-0", "part-1"]
    target.discard()
    assert names_in(tmp_path / "out") == ["part-0", "part-1"]


def test_discard_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    target = OutputFolder(str(tmp_path / "a" / "b" / "out"), JOB)
    target.open()
    written(tmp_path / "a" / "b" / "out", "part-0")
    target.discard()
    assert names_in(tmp_path) == []


def test_discard_keeps_folders_that_others_use(tmp_path: Path) -> None:
    target = OutputFolder(str(tmp_path / "a" / "out"), JOB)
    target.open()
    (tmp_path / "a" / "theirs").touch()
    target.discard()
    assert names_in(tmp_path / "a") == ["theirs"]


def test_discard_after_publish_takes_nothing_back(tmp_path: Path) -> None:
    target = OutputFolder(str(tmp_path / "out"), JOB)
    target.open()
    target.publish(written(tmp_path / "out", "part-0"))
    target.discard()
    assert names_in(tmp_path / "out") == ["part-0"]


def test_missing_file_publishes_none(tmp_path: Path) -> None:
    target = OutputFolder(str(tmp_path / "out"), JOB)
    target.open()
    files = written(tmp_path / "out", "part-0")
    with pytest.raises(PeerError, match="part-1 was written by another agent"):
        target.publish([*files, "attempt-0/part-1"])
    assert names_in(tmp_path / "out") == [f".sabot-{JOB}"]


def test_folder_that_holds_something_is_refused_and_left(tmp_path: Path) -> None:
    (tmp_path / "theirs").touch()
    with pytest.raises(UsageError, match="not empty, it holds theirs"):
        OutputFolder(str(tmp_path), JOB).open()
    assert names_in(tmp_path) == ["theirs"]


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UsageError, match="cannot be written to as a folder"):
        OutputFolder(str(tmp_path / "out"), JOB).open()


def test_relative_folder_is_refused() -> None:
    with pytest.raises(UsageError, match="relative"):
        OutputFolder("out", JOB).open()
