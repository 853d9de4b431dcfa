"""Many clusters one after the other, and faults at moments that matter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from .checks import Violation
from .cluster import Cluster
from .faults import Fault, Kind

SEEDS_TO_CATCH = 400  # within so many a broken machine must be seen
LITTLE = (3_000, 1 << 40)
"""Memory for three chunks on each agent, and a disk."""
MUCH = (0, 1 << 40)


def run(seeds: Iterable[int], **given: Any) -> None:
    for seed in seeds:
        try:
            Cluster(seed, **given).run()
        except Violation as violation:
            message = f"{violation}\nreplay it: python -m tests.simulation --seed {seed} -v"
            raise Violation(message) from violation


def moment(kind: Kind, happening: str, count: int, **more: Any) -> Fault:
    return Fault(kind=kind, happening=happening, count=count, coordinator=False, **more)


def at_coordinator(kind: Kind, happening: str, count: int, **more: Any) -> Fault:
    return Fault(kind=kind, happening=happening, count=count, coordinator=True, **more)


def caught(**given: Any) -> Violation:
    with pytest.raises(Violation) as raised:
        run(range(SEEDS_TO_CATCH), **given)
    return raised.value
