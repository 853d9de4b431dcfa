"""The inner join by one key in one thread, by our own index and by Acero: many rows, each with its one match.

`python benchmarks/joining.py [--rounds N] [--seed N]`. Medians of CPU milliseconds of runs in turns.
"""

from __future__ import annotations

import argparse
import random
import secrets
import statistics

import pyarrow as pa
from grouping import cpu_ms
from measuring import in_turns, print_machine

from sabot.dataflow.joining import join_plan
from sabot.dataflow.key_join import key_join
from sabot.dataflow.stage import Join

RIGHT_ROWS = 375_000
LEFT_ROWS_OF_KEY = 4
STEP = Join(keys=("k",), right_keys=("key",), join_type="inner")


def ours(left: pa.Table, right: pa.Table) -> pa.Table:
    by_key = key_join(STEP, [left, right])
    assert by_key is not None
    return pa.concat_tables([by_key.join(piece) for piece in by_key.pieces(left)])


def acero(left: pa.Table, right: pa.Table) -> pa.Table:
    return join_plan(left, right, STEP).declaration.to_table(use_threads=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print_machine(options.seed)
    keys = [key for key in range(RIGHT_ROWS) for _ in range(LEFT_ROWS_OF_KEY)]
    texts = pa.array([rng.choice(["1-URGENT", "2-HIGH", "3-MEDIUM"]) for _ in range(RIGHT_ROWS)])
    right = pa.table({"key": pa.array(range(RIGHT_ROWS), pa.int64()), "w": texts})
    for name, order in {"keys side by side": keys, "in random order": rng.sample(keys, len(keys))}.items():
        left = pa.table({"k": pa.array(order, pa.int64()), "v": pa.array(range(len(keys)), pa.float64())})
        cases = {
            "ours": cpu_ms(lambda left=left: ours(left, right)),  # type: ignore[misc]
            "Acero": cpu_ms(lambda left=left: acero(left, right)),  # type: ignore[misc]
        }
        took = {case: statistics.median(runs) for case, runs in in_turns(cases, options.rounds, rng).items()}
        print(f"{len(keys):,} rows with {RIGHT_ROWS:,}, {name}:")
        print(f"  ours {took['ours']:.1f} ms, Acero {took['Acero']:.1f} ms: {took['Acero'] / took['ours']:.1f} x")


if __name__ == "__main__":
    main()
