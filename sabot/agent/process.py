"""What the operating system says of the agent's processes."""

from __future__ import annotations

import psutil


def resident_bytes() -> int:
    """Resident memory of this process and all its descendants."""
    me = psutil.Process()
    total = int(me.memory_info().rss)
    for child in me.children(recursive=True):
        try:
            total += int(child.memory_info().rss)
        except psutil.NoSuchProcess:  # it ended between the list and the question
            continue
    return total
