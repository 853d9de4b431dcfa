"""Rows in memory put in order: `Dataset.sort_by` over one agent and over two, next to `pyarrow.Table.sort_by`.

`python benchmarks/sorting.py --data DIR [--keys COLUMN...] [--files N] [--rounds N] [--seed N]`

DIR holds TPC-H's lineitem as Parquet (`pip install tpchgen-cli`; `tpchgen-cli parquet -s 1 --tables=lineitem --parts=8
--output-dir=DIR`), of which N files are read. Each agent has one slot; its rows lie with it (`persist`), and the sorted
ones stay there. Runs are in turns; each result's first rows are held against pyarrow's. Of the last run it says what
its stages took.
"""

from __future__ import annotations

import argparse
import random
import secrets
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from measuring import in_turns, print_machine, timed
from plain_tables import plain_files

import sabot
from sabot.dataflow.dataset import Dataset

AGENTS = (1, 2)
HEAD = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--keys", nargs="+", default=["l_extendedprice", "l_shipdate"])
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    print_machine(options.seed)
    files = plain_files(options.data, "lineitem")[: options.files]
    table = pa.concat_tables([pq.read_table(file) for file in files]).combine_chunks()
    print(f"{table.num_rows:,} rows of {table.num_columns} columns, {table.nbytes / 1e9:.2f} GB")
    with ExitStack() as stack:
        datasets = {}
        for agents in AGENTS:
            cluster = stack.enter_context(sabot.LocalCluster(agents=agents, slots=1))
            session = stack.enter_context(cluster.connect(progress=False))
            kept = session.read_parquet([str(file) for file in files]).persist()
            datasets[f"{agents} agents"] = stack.enter_context(kept)
        for key in options.keys:
            measure(key, table, datasets, options.rounds, random.Random(options.seed))


def measure(key: str, table: pa.Table, datasets: dict[str, Dataset], rounds: int, rng: random.Random) -> None:
    first = table.take(pc.sort_indices(table, sort_keys=[(key, "ascending")]).slice(0, HEAD))
    took: list[str] = []

    def ours(dataset: Dataset) -> Callable[[], float]:
        def run() -> float:
            start_s = time.perf_counter()
            with dataset.sort_by(key).run() as result:
                seconds = time.perf_counter() - start_s
                given = pa.Table.from_batches([next(result.to_batches())])
                assert given.slice(0, HEAD).to_pylist() == first.slice(0, given.num_rows).to_pylist(), (
                    "wrong first rows"
                )
                stages = ", ".join(f"{one.label} {one.elapsed_s:.2f}" for one in result.stats.stages)
            took.append(f"{seconds:.2f}: {stages}")
            return seconds

        return run

    cases = {"pyarrow": timed(lambda: table.sort_by(key)), **{name: ours(one) for name, one in datasets.items()}}
    seconds = {name: statistics.median(runs) for name, runs in in_turns(cases, rounds, rng).items()}
    print(f"by {key}:")
    for name, each in seconds.items():
        print(f"  {name:9} {each:6.2f} s, {seconds['pyarrow'] / each:5.2f} x as fast as pyarrow")
    print(f"  seconds of stages, last run of {took[-1]}")


if __name__ == "__main__":
    main()
