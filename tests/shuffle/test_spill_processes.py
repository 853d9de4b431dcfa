"""What agents in processes of their own leave on disk, and how much memory they take, when rows do not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.agent.processes import without_pandas
from tests.shuffle.agent_of_much import BATCH_ROWS, NOISE_BYTES
from tests.shuffle.spilling import MiB, files_in, small_transport

ROOT = Path(__file__).parents[2]
MEMORY = 128 * MiB
BATCHES = 10 * MEMORY // (BATCH_ROWS * NOISE_BYTES)


@contextmanager
def process(
    module: str, *arguments: object, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process of the tests, killed at the end."""
    command = [sys.executable, "-m", module, *(str(argument) for argument in arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(environment or {})}, text=True, **pipes) as started:
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


def say(agents: list[subprocess.Popen[str]], what: object) -> None:
    for agent in agents:
        assert agent.stdin is not None
        print(json.dumps(what), file=agent.stdin, flush=True)


def heard(agents: list[subprocess.Popen[str]]) -> list[object]:
    return [json.loads(line_of(agent)) for agent in agents]


def test_two_agents_that_shuffle_ten_times_their_memory_keep_to_it(tmp_path: Path) -> None:
    spilling = tmp_path / "spilling"
    folders = [spilling / "0", spilling / "1"]
    environment = without_pandas(tmp_path)
    with ExitStack() as started:
        agents = [
            started.enter_context(
                process("tests.shuffle.agent_of_much", me, MEMORY, BATCHES, folders[me], environment=environment)
            )
            for me in range(2)
        ]
        say(agents, heard(agents))
        assert heard(agents) == ["open", "open"]
        say(agents, "send")
        assert heard(agents) == [BATCHES * BATCH_ROWS] * 2
        files = [len(files_in(folder)) for folder in folders]
        assert min(files) >= 1 and max(files) <= 2, files  # what is stored, and perhaps what waited to be sent
        say(agents, "read")
        found = heard(agents)
        say(agents, "end")
        assert [agent.wait(timeout=30) for agent in agents] == [0, 0]
    rows, keys, spilled, peaks = zip(*found, strict=True)  # type: ignore[misc]
    total = 2 * BATCHES * BATCH_ROWS
    assert sum(rows) == total
    assert sum(keys) == total * (total - 1) // 2
    assert min(spilled) > 5 * MEMORY
    assert max(peaks) <= 1.1 * MEMORY + 150 * MiB
    assert files_in(spilling) == []
