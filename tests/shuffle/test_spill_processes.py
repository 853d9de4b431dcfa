"""What agents in processes of their own leave on disk, and how much memory they take, when rows do not fit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.shuffle.spilling import files_in, small_transport

ROOT = Path(__file__).parents[2]


@contextmanager
def process(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process of the tests, killed at the end."""
    command = [sys.executable, "-m", module, *(str(argument) for argument in arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def line_of(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    line = started.stdout.readline()
    assert line, "the process ended early"
    return line


def test_what_a_killed_agent_left_is_removed_by_the_next_and_a_living_one_keeps_its_own(tmp_path: Path) -> None:
    with process("tests.shuffle.spilling_agent", tmp_path) as killed:
        assert int(line_of(killed)) == 1
        with process("tests.shuffle.spilling_agent", tmp_path) as living:
            assert int(line_of(living)) == 2
            killed.kill()
            killed.wait(timeout=20)
            assert len(files_in(tmp_path)) == 2
            with small_transport([tmp_path]):
                assert len(files_in(tmp_path)) == 1
                assert len(list(tmp_path.iterdir())) == 2
    with small_transport([tmp_path]):
        assert files_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
