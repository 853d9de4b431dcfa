"""Runs the command line of sabot-agent in a process that ends with the one that started it.

The parent holds the other end of standard input; when it closes, by stop or by death of the parent, this process kills
itself. (PR_SET_PDEATHSIG will not do: it follows the parent's thread, not its process.)
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def _end_with_parent() -> None:
    while os.read(sys.__stdin__.fileno(), 4096):  # type: ignore[union-attr]
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, name="sabot-leash", daemon=True).start()
    runpy.run_module("sabot.cli.main", run_name="__main__", alter_sys=True)
