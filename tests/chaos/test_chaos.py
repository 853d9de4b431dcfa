"""Thirty blows at random moments of TPC-H jobs, from one seed: no row lost or doubled, no job failed, no hang."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .arena import arena, told

KILLS = 30


@pytest.mark.timeout(600)
def test_jobs_are_exact_whichever_agent_is_struck_and_when(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with arena(tmp_path) as field:
        rounds = [field.round(rng) for _ in range(KILLS)]
    print(told(rounds))
    assert told(rounds) == f"{KILLS} kills, rows lost 0, rows doubled 0, hangs 0", [
        str(one) for one in rounds if not one.exact
    ]
