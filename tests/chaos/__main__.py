"""`python -m tests.chaos --kills N [--seed S] [-v]`: TPC-H jobs on four agents, one of which is struck in each."""

from __future__ import annotations

import argparse
import random
import secrets
import statistics
import sys
import tempfile
from pathlib import Path

from .arena import arena, told


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, help="which jobs, blows and moments; left out, a new one, printed")
    parser.add_argument("--spare-coordinator", action="store_true", help="never strike the agent that drives the job")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every round")
    given = parser.parse_args()
    seed = secrets.randbits(32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    rng = random.Random(seed)
    rounds = []
    with tempfile.TemporaryDirectory(prefix="sabot-chaos-") as folder, arena(Path(folder)) as field:
        for _ in range(given.kills):
            rounds.append(field.round(rng, coordinator_too=not given.spare_coordinator))
            if given.verbose or not rounds[-1].exact:
                print(rounds[-1], flush=True)
    for blow in sorted({one.blow for one in rounds}):
        costs = [one.took_s / one.usual_s for one in rounds if one.blow == blow]
        print(f"{blow:9} {len(costs):4} times, the job took {statistics.median(costs):.1f} x its usual time")
    print(told(rounds))
    return 0 if all(one.exact for one in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
