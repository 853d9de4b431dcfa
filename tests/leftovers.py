"""What a process holds that a test may leave behind: threads, file descriptors, processes, temporary files.

Threads and descriptors that gRPC and Arrow keep for the life of the process, as for their event loops, are not counted.
"""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

SETTLE_S = 10.0
# Native threads are known by name: ours, and the ones that serve a Flight or gRPC port. Libraries' pools stay.
OUR_NATIVE_THREADS = ("sabot", "grpcpp_sync_ser")
# gRPC and Python keep these once they have made them.
STANDARD_STREAMS = ("0", "1", "2")  # pytest's capture moves them to and fro
KEPT_DESCRIPTORS = ("anon_inode:[eventpoll]", "anon_inode:[eventfd]", "/dev/", "/proc/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What there was at one moment; compare a later moment with `check`."""

    MARK: ClassVar[str] = "PYTEST_RUN_OF_SABOT"

    threads: frozenset[str]
    descriptors: frozenset[str]
    processes: frozenset[str]
    files: frozenset[str]

    @classmethod
    def mark_children(cls, patch: pytest.MonkeyPatch) -> None:
        """Marks every process that will be started from here, so that orphans are known as ours."""
        patch.setenv(cls.MARK, uuid.uuid4().hex)

    @classmethod
    def now(cls) -> Leftovers:
        return cls(
            threads=frozenset(_threads()),
            descriptors=frozenset(_descriptors()),
            processes=frozenset(_processes(f"{cls.MARK}={os.environ.get(cls.MARK, '')}")),
            files=frozenset(str(path) for path in Path(tempfile.gettempdir()).iterdir()),
        )

    def left(self) -> list[str]:
        """What is there now and was not then."""
        now = Leftovers.now()
        return [
            f"{kind}: {name}"
            for kind in ("threads", "descriptors", "processes", "files")
            for name in sorted(getattr(now, kind) - getattr(self, kind))
        ]

    def check(self, *, settle_s: float = SETTLE_S) -> None:
        """Fails the test if something is left, after giving what is on its way out time to go."""
        deadline = time.monotonic() + settle_s
        left = self.left()
        while left and time.monotonic() < deadline:
            gc.collect()
            threading.Event().wait(0.02)
            left = self.left()
        if left:
            pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)


def _threads() -> list[str]:
    named = [
        f"{thread.name} ({thread.ident})"
        for thread in threading.enumerate()
        if not thread.name.startswith("pytest_timeout")
    ]
    python_threads = {thread.native_id for thread in threading.enumerate()}
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) in python_threads:
            continue
        name = _text_of(task / "comm")
        if name.startswith(OUR_NATIVE_THREADS):
            named.append(f"native {name} ({task.name})")
    return named


def _descriptors() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if link.name not in STANDARD_STREAMS and not target.startswith(KEPT_DESCRIPTORS):
            found.append(f"{link.name} -> {target}")
    return found


def _processes(mark: str) -> list[str]:
    found: dict[int, str] = {}
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        with_mark = process.pid in children or mark in _text_of(Path(f"/proc/{process.pid}/environ"))
        if with_mark and process.pid != os.getpid():
            found[process.pid] = _describe(process)
    return [text for text in found.values() if text]


def _describe(process: psutil.Process) -> str:
    """One line for `process`; empty when it is gone. A zombie counts only while it is ours to reap."""
    facts: dict[str, Any] = {}
    try:
        facts = process.as_dict(["status", "ppid", "create_time", "cmdline", "name"])
    except psutil.NoSuchProcess:
        return ""
    if facts["status"] == psutil.STATUS_ZOMBIE and facts["ppid"] != os.getpid():
        return ""
    command = " ".join(facts["cmdline"] or [facts["name"]])
    return f"{process.pid} since {facts['create_time']}: {facts['status']} {command}"


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
