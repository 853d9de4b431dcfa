"""What the benchmarks share: cases run in turns on one machine, and a word on what machine that was."""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

T = TypeVar("T")


def in_turns(cases: Mapping[str, Callable[[], T]], rounds: int, rng: random.Random) -> dict[str, list[T]]:
    """What each case gives, round by round, each round in another order; one round before them warms up."""
    given: dict[str, list[T]] = {name: [] for name in cases}
    names = list(cases)
    for _ in range(rounds + 1):
        rng.shuffle(names)
        for name in names:
            given[name].append(cases[name]())
    return {name: values[1:] for name, values in given.items()}


def timed(call: Callable[[], object]) -> Callable[[], float]:
    """`call` as a case that gives its seconds."""

    def run() -> float:
        start_s = time.perf_counter()
        call()
        return time.perf_counter() - start_s

    return run


def print_machine(seed: int) -> None:
    """The machine, its load and the versions, so that a figure can be put in its place."""
    load, linux = os.getloadavg()[0], platform.release()
    print(f"machine: {_cpu_name()}, {os.cpu_count()} cores, load {load:.1f}, Linux {linux}")
    print(f"versions: Python {platform.python_version()}, pyarrow {pa.__version__}; seed {seed}")


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
