"""An agent that resets its connections at SIGUSR1, as a firewall might, and sorts by many ranges. Run as a process."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

from sabot.cli.main import main
from tests.jobs.fine_agent import cut_finely


def cut(number: int, frame: object) -> None:
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as end:
                if end.family in {socket.AF_INET, socket.AF_INET6} and end.getpeername():
                    end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, cut)
    cut_finely()
    main()
