"""A process of test_spill_processes: it spills into the folder that it is given, says so, and waits to be killed."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from tests.shuffle.spilling import files_in, fill, small_transport


def main(folder: Path) -> None:
    with small_transport([folder]) as transport:
        fill(transport, "s", 8, random.Random(1))
        print(len(files_in(folder)), flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
