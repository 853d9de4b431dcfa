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
from functools import cache
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

    threads: dict[str, str]  # what tells them apart -> what to call them
    descriptors: dict[str, str]
    processes: dict[str, str]
    files: dict[str, str]

    @classmethod
    def mark_children(cls, patch: pytest.MonkeyPatch) -> None:
        """Marks every process that will be started from here, so that orphans are known as ours."""
        patch.setenv(cls.MARK, uuid.uuid4().hex)

    @classmethod
    def now(cls) -> Leftovers:
        return cls(
            threads={text: text for text in _threads()},
            descriptors={text: text for text in _descriptors()},
            processes=_processes(f"{cls.MARK}={os.environ.get(cls.MARK, '')}"),
            files={str(path): str(path) for path in Path(tempfile.gettempdir()).iterdir()},
        )

    def left(self) -> list[str]:
        """What is there now and was not then."""
        now = Leftovers.now()
        return [
            f"{kind}: {text}"
            for kind in ("threads", "descriptors", "processes", "files")
            for identity, text in sorted(getattr(now, kind).items())
            if identity not in getattr(self, kind)
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
        name = _text_of(f"/proc/self/task/{task.name}/comm")
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


def _processes(mark: str) -> dict[str, str]:
    """Every child and every process with `mark` in its environment; a zombie counts only while it is ours to reap."""
    found: dict[str, str] = {}
    for pid in _ours(mark):
        try:
            process = psutil.Process(pid)
            facts: dict[str, Any] = process.as_dict(["status", "ppid", "create_time", "cmdline", "name"])
        except psutil.NoSuchProcess:
            continue
        if facts["status"] == psutil.STATUS_ZOMBIE and facts["ppid"] != os.getpid():
            continue
        command = " ".join(facts["cmdline"] or [facts["name"]])
        # Not its command or state: both change while it runs.
        found[f"{process.pid} {facts['create_time']}"] = f"{process.pid} {facts['status']} {command}"
    return found


def _ours(mark: str) -> list[int]:
    parents: dict[int, int] = {}
    started: dict[int, str] = {}
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdecimal()]
    for pid in pids:
        facts = _text_of(f"/proc/{pid}/stat").rpartition(")")[2].split(None, 20)
        if facts:  # from the third of proc(5) on
            parents[pid], started[pid] = int(facts[1]), facts[19]

    def is_below_us(pid: int) -> bool:
        while pid := parents.get(pid, 0):
            if pid == os.getpid():
                return True
        return False

    others = [pid for pid in parents if pid != os.getpid()]
    return [pid for pid in others if is_below_us(pid) or _is_marked(pid, started[pid], mark)]


@cache
def _is_marked(pid: int, started: str, mark: str) -> bool:
    """Of one that is not below us: it stays so for as long as the process lives, and is asked for twice a test."""
    return mark in _text_of(f"/proc/{pid}/environ")


def _text_of(path: str) -> str:
    """What lies there, or nothing. Small and read a hundred times a test: without the layers of a file object."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return b"".join(iter(lambda: os.read(descriptor, 65536), b"")).decode(errors="replace").strip()
    except OSError:
        return ""
    finally:
        os.close(descriptor)
