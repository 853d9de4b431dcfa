"""A peer of a benchmark as a process of its own, which does one work at a time (peers/turns.py is its other side).

What is measured is its seconds from call to answer, and the CPU time of it and all its descendants.
"""

from __future__ import annotations

import select
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a work. `answer` is the table that it gave, `folder` the files that it wrote, until the next run."""

    seconds: float
    cpu_s: float
    answer: pa.Table | None
    folder: Path


ANSWER_S_MAX = 180.0


class PeerSilent(Exception):
    """A peer has not answered within ANSWER_S_MAX."""


class PeerProcess:
    """Runs `command`, which serves works, until the block is left. Says what it wrote to standard error if it fails."""

    def __init__(self, name: str, command: Sequence[str | Path]) -> None:
        self.name = name
        self._command = command
        self._scratch = tempfile.TemporaryDirectory(prefix="peer-")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._runs = 0

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True)
        self.works = self._answer().split()
        return self

    def run(self, work: str) -> Run:
        self._runs += 1
        folder = Path(self._scratch.name) / f"run-{self._runs}"
        folder.mkdir()
        before = self._cpu_s()
        assert self._process.stdin is not None
        self._process.stdin.write(f"{work} {folder}\n")
        self._process.stdin.flush()
        seconds = float(self._answer())
        after = self._cpu_s()
        cpu_s = sum(now - before.get(pid, 0.0) for pid, now in after.items())
        saved = folder / "answer.arrow"
        answer = pa.ipc.open_file(pa.memory_map(str(saved))).read_all() if saved.exists() else None
        return Run(seconds=seconds, cpu_s=cpu_s, answer=answer, folder=folder)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], ANSWER_S_MAX)[0]:
            raise PeerSilent
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(60)
            self._errors.seek(0)
            raise SystemExit(f"{self.name} failed:\n{self._errors.read()[-4000:]}")
        return line

    def _cpu_s(self) -> dict[int, float]:
        """By process: those that end in a run are left out, for what they used is known no longer."""
        found = {}
        for process in [me := psutil.Process(self._process.pid), *me.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            found[process.pid] = times.user + times.system
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = self._process.returncode is not None
        descendants = [] if ended else psutil.Process(self._process.pid).children(recursive=True)
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for left in psutil.wait_procs(descendants, timeout=10)[1]:
            left.kill()
        self._errors.close()
        self._scratch.cleanup()
