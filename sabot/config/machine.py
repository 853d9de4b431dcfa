"""What this machine, or the container of this process, has of memory, and what of it agents take by default."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MEMORY_PART = 0.6
"""The rest is for the system's file cache, the client beside the agent, and what no ledger counts."""

BYTES_MIN = 64 << 20


def default_memory_bytes_max(agents: int = 1, *, root: Path = Path("/")) -> int:
    """What each of `agents` on this machine may hold: together MEMORY_PART of what there is; at least 64 MiB."""
    return max(BYTES_MIN, int(machine_memory_bytes(root=root) * MEMORY_PART / agents))


def machine_memory_bytes(*, root: Path = Path("/")) -> int:
    """The physical memory, or less where a control group of this process, of version 2 or 1, has a lower limit."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_group_limits(root)])


def _group_limits(root: Path) -> Iterator[int]:
    """Every limit from this process's group up to the top, as the lowest holds."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers == "":
                top, name = root / "sys/fs/cgroup", "memory.max"
            elif "memory" in controllers.split(","):
                top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            else:
                continue
            # In a container the path is the host's, and the group itself is mounted at the top.
            folder = top / group.lstrip("/")
            for place in (folder, *folder.parents):
                if place.is_relative_to(top):
                    yield from _limit_in(place / name)


def _limit_in(file: Path) -> Iterator[int]:
    with suppress(OSError, ValueError):  # no such group here, or "max"
        yield int(file.read_text())
