"""Real agents, the coordinator among them, are struck in the middle of TPC-H jobs: no row is lost, doubled or late."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .arena import arena, told

KILLS = 30
SEED = 7


@pytest.mark.timeout(600)
def test_thirty_blows_cost_no_row_and_no_job(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    with arena(tmp_path) as field:
        rounds = [field.round(rng) for _ in range(KILLS)]
    print(told(rounds))
    assert sum(one.coordinator for one in rounds) >= 5, "the coordinator was spared"
    assert {one.blow for one in rounds} == {"killed", "frozen", "restarted", "cut"}
    inexact = [str(one) for one in rounds if not one.exact]
    assert not inexact, "\n".join(inexact)
    assert told(rounds) == f"{KILLS} kills, rows lost 0, rows doubled 0, hangs 0"
