"""The soak of the benchmark, for a moment; `python benchmarks/slots.py --soak 60` runs it for longer."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "slots.py"


def test_nothing_is_lost_doubled_or_left_behind(rng: random.Random) -> None:
    command = [sys.executable, str(BENCHMARK), "--soak", "3", "--seed", str(rng.getrandbits(32))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
