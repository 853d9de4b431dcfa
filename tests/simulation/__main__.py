"""`python -m tests.simulation --seeds N` names the seeds that break an invariant; `--seed N -v` replays one."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from .checks import Violation
from .cluster import Cluster


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("-v", "--verbose", action="store_true", help="print everything that happens")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds) if given.seed is None else [given.seed]
    started_s = time.monotonic()
    outcomes: Counter[str] = Counter()
    broken = 0
    for seed in seeds:
        try:
            outcomes[Cluster(seed, trace=print if given.verbose else None).run()] += 1
        except Violation as violation:
            broken += 1
            print(f"seed {seed}: {violation}", flush=True)
        except Exception as error:
            raise RuntimeError(f"seed {seed}") from error
    told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    print(
        f"{len(seeds)} seeds in {time.monotonic() - started_s:.1f} s: {broken} break an invariant; jobs ended: {told}"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
