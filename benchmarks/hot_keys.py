"""What a key with half of the rows costs a join, shared by all agents and not; and what copying a small side saves.

Four cases of one join, run in turns in the same agents: uniform keys; half of the rows of one key with its partition
shared; the same unshared (`shuffle.hot_partition_factor` out of reach, in agents of its own); and the hot rows with the
small side broadcast. Then joins with a copied side of several sizes beside the same joins shuffled. Prints its machine,
versions and seed, medians with their spread, the ratio to uniform (at most 1.5 is wanted), what tasks were given, and
whether every answer is right. `python benchmarks/hot_keys.py [--rows N] [--agents N] [--rounds N] [--seed N]`.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from measuring import in_turns, print_machine

import sabot
from sabot.client.receipt import Receipt
from sabot.client.session import Session
from sabot.dataflow import broadcasts
from sabot.dataflow.dataset import Dataset

HOT_KEY = 7
FILES = 8
WANTED_RATIO = 1.5
COPY_MIB = (0.5, 2, 10, 30)
FACTOR = "SABOT_SHUFFLE_HOT_PARTITION_FACTOR"

Case = Callable[[], float]


def rows_of(count: int, keys: int, rng: random.Random, *, hot: float) -> pa.Table:
    """Rows of about 40 bytes; the part `hot` of them has one key, the others have any of `keys`."""
    any_key = pc.floor(pc.multiply(pc.random(count, initializer=rng.randrange(1 << 31)), float(keys)))
    is_hot = pc.less(pc.random(count, initializer=rng.randrange(1 << 31)), hot)
    return pa.table(
        {
            "k": pc.if_else(is_hot, HOT_KEY, any_key.cast(pa.int64())),
            "v": pa.array(range(count), pa.int64()),
            "w": pc.random(count, initializer=rng.randrange(1 << 31)),
            "x": pc.random(count, initializer=rng.randrange(1 << 31)),
        }
    )


def write(folder: Path, table: pa.Table) -> str:
    folder.mkdir()
    rows = -(-table.num_rows // FILES)
    for index in range(FILES):
        pq.write_table(table.slice(index * rows, rows), folder / f"{index}.parquet", row_group_size=1 << 18)
    return str(folder)


class Join:
    """One join, counted so that its answer is small, in a session; `receipts` are those of its runs."""

    def __init__(self, session: Session, large: str, small: str, expected: tuple[int, int]) -> None:
        joined = session.read_parquet(large).join(session.read_parquet(small), "k", join_type="inner")
        totals = [("v", "sum"), ("y", "sum")]
        self._data: Dataset = joined.group_by([]).aggregate(totals)
        self._expected = expected
        self.receipts: list[Receipt] = []

    def __call__(self) -> float:
        start_s = time.perf_counter()
        with self._data.run() as result:
            table = result.to_table()
            took_s = time.perf_counter() - start_s
            self.receipts.append(result.receipt)
        got = tuple(table[name][0].as_py() for name in ("v_sum", "y_sum"))
        if got != self._expected or not self.receipts[-1].exact:
            raise AssertionError(f"the answer is {got} and not {self._expected}, {self.receipts[-1]}")
        return took_s


def sums_of(large: pa.Table, small: pa.Table) -> tuple[int, int]:
    joined = large.select(["k", "v"]).join(small, "k", join_type="inner")
    return pc.sum(joined["v"]).as_py(), pc.sum(joined["y"]).as_py()


def told(name: str, seconds: list[float], base_s: float) -> None:
    middle_s = statistics.median(seconds)
    spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
    print(f"  {name:28} {middle_s:7.3f} s ({spread}), {middle_s / base_s:5.2f} x uniform")


def hot_keys(options: argparse.Namespace, folder: Path, rng: random.Random) -> bool:
    """Whether the shared join is within the ratio that is wanted."""
    keys = options.rows // 40
    small = pa.table({"k": pa.array(range(keys), pa.int64()), "y": pa.array(range(keys), pa.int64())})
    tables = {name: rows_of(options.rows, keys, rng, hot=part) for name, part in (("uniform", 0.0), ("hot", 0.5))}
    paths = {name: write(folder / name, table) for name, table in tables.items()}
    small_path = write(folder / "small", small)
    expected = {name: sums_of(table, small) for name, table in tables.items()}
    os.environ[FACTOR] = "1000000"
    with sabot.LocalCluster(agents=options.agents, slots=1) as plain:
        del os.environ[FACTOR]
        with sabot.LocalCluster(agents=options.agents, slots=1) as cluster:
            shuffling = cluster.connect(progress=False, broadcast_bytes_max=0)
            copying = cluster.connect(progress=False, broadcast_bytes_max=small.nbytes * 2)
            unshared = plain.connect(progress=False, broadcast_bytes_max=0)
            joins = {
                "uniform keys": Join(shuffling, paths["uniform"], small_path, expected["uniform"]),
                "half of one key, shared": Join(shuffling, paths["hot"], small_path, expected["hot"]),
                "half of one key, not shared": Join(unshared, paths["hot"], small_path, expected["hot"]),
                "half of one key, broadcast": Join(copying, paths["hot"], small_path, expected["hot"]),
            }
            seconds = in_turns(joins, options.rounds, rng)
    base_s = statistics.median(seconds["uniform keys"])
    print(f"join of {options.rows:,} rows with {keys:,}, {options.agents} agents of one slot, {options.rounds} rounds:")
    for name, values in seconds.items():
        told(name, values, base_s)
        for shuffle in joins[name].receipts[-1].shuffles[:2]:
            what = (
                f"stage {shuffle.stage_id}: {shuffle.rows_in:,} rows, largest partition {shuffle.skew:.1f} x the mean"
            )
            print(f"      {what}, copies {shuffle.copies:,}, wire {shuffle.wire_bytes / 1e6:.0f} MB")
    ratio = statistics.median(seconds["half of one key, shared"]) / base_s
    print(f"half of the rows of one key: {ratio:.2f} x uniform, wanted at most {WANTED_RATIO}")
    return ratio <= WANTED_RATIO


def copies(options: argparse.Namespace, folder: Path, rng: random.Random) -> None:
    """From what size on a copy costs more than the shuffle of the other side."""
    broadcasts.TIMES_SMALLER = 0  # the planner copies whatever it may
    print("the side that is copied, beside the same join shuffled:")
    with sabot.LocalCluster(agents=options.agents, slots=1) as cluster:
        sessions = {
            "copied": cluster.connect(progress=False, broadcast_bytes_max=1 << 30),
            "shuffled": cluster.connect(progress=False, broadcast_bytes_max=0),
        }
        for size in COPY_MIB:
            count = int(size * (1 << 20) / 16)
            small = pa.table({"k": pa.array(range(count), pa.int64()), "y": pa.array(range(count), pa.int64())})
            large = rows_of(options.rows, count, rng, hot=0.0)
            expected = sums_of(large, small)
            paths = write(folder / f"large {size}", large), write(folder / f"small {size}", small)
            cases = {name: Join(session, *paths, expected) for name, session in sessions.items()}
            seconds = {name: statistics.median(values) for name, values in in_turns(cases, options.rounds, rng).items()}
            ratio = seconds["shuffled"] / seconds["copied"]
            print(
                f"  {size:5} MiB: copied {seconds['copied']:.3f} s, shuffled {seconds['shuffled']:.3f} s, {ratio:.2f} x"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--agents", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print_machine(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        within = hot_keys(options, Path(folder), rng)
        copies(options, Path(folder), rng)
    return 0 if within else 1


if __name__ == "__main__":
    raise SystemExit(main())
