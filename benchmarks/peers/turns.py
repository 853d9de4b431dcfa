"""A peer's side of a benchmark: works that it is told to do one at a time, in one process, until its input ends.

Each line of standard input is WORK FOLDER. The work is done with that empty folder for what it writes, and the seconds
are answered by a line of standard output; the table that it gave, if any, then lies in the folder as answer.arrow.
Whatever else is printed goes to standard error.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa

Works = Mapping[str, Callable[[Path], pa.Table | None]]


def serve(works: Works) -> None:
    """Says which works it knows, then does what it is told; returns at the end of the input."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print(*works, file=answers)
    for line in sys.stdin:
        work, folder = line.rstrip("\n").split(" ", 1)
        start_s = time.perf_counter()
        answer = works[work](Path(folder))
        took_s = time.perf_counter() - start_s
        if answer is not None:
            with pa.ipc.new_file(f"{folder}/answer.arrow", answer.schema) as writer:
                writer.write_table(answer)
        del answer
        print(f"{took_s:.6f}", file=answers)
