"""Jobs over TPC-H's files next to Sail, Dask, Ray Data, Daft, DuckDB and Polars; what a kill and a small job cost.

`python benchmarks/tpch.py --data DIR [--peers PYTHON] [--only WORK...] [--with PEER...] [--rounds N]`

DIR holds lineitem and orders as Parquet (`pip install tpchgen-cli`; `tpchgen-cli parquet -s 1 --parts=8
--output-dir=DIR`). PYTHON is an interpreter that has `pysail pyspark-client dask[dataframe,distributed] ray[data] daft
duckdb polars`; without it the peers are left out. Each peer is a process of its own with its cluster in it, which reads
the files anew in each run. After one run of each come the rounds, each with all peers in another order, and the medians
of those count. Every answer is compared with DuckDB's.
"""

from __future__ import annotations

import argparse
import random
import secrets
import shutil
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from job_overhead import measure_overhead
from measuring import print_machine
from peer_process import ANSWER_S_MAX, PeerProcess, PeerSilent, Run
from plain_tables import plain_files
from tpch_kills import measure_kills

WORKS = {
    "group": "6 M rows into 1.5 M groups by l_orderkey, and the groups counted and added up",
    "fetch": "6 M rows into 1.5 M groups by l_orderkey, to the client",
    "join": "lineitem joined with orders, grouped by o_orderpriority",
    "files": "lineitem's 16 columns from Parquet into 16 Parquet files by l_orderkey",
}
OTHERS = ("overhead", "kills")
PEERS = ("sail", "dask", "ray", "daft", "duckdb", "polars")
WANTED = {  # times as fast as the peer
    ("group", "sail"): 1 / 1.5,
    ("group", "dask"): 3.0,
    ("group", "ray"): 10.0,
    ("join", "sail"): 1 / 1.5,
    ("join", "dask"): 3.0,
    ("join", "ray"): 10.0,
}
TOLERANCE = 1e-9
FILES = 16


class Answers:
    """What the works' answers are to be, by DuckDB in this process, which is not timed."""

    def __init__(self, lineitem: Sequence[Path], orders: Sequence[Path]) -> None:
        self._lines = f"read_parquet({[str(file) for file in lineitem]})"
        self._orders = f"read_parquet({[str(file) for file in orders]})"
        totals = "sum(l_quantity), count(*)"
        joined = f"{self._lines} JOIN {self._orders} ON l_orderkey = o_orderkey"
        groups = f"SELECT l_orderkey, {totals} FROM {self._lines} GROUP BY ALL"
        added = f"SELECT count(*), sum(quantity), sum(lines) FROM ({groups}) AS t(key, quantity, lines)"
        self._right = {
            "group": _ordered(_table(added)),
            "fetch": _ordered(_table(groups)),
            "join": _ordered(_table(f"SELECT o_orderpriority, {totals} FROM {joined} GROUP BY ALL")),
        }
        self._names = duckdb.sql(f"SELECT * FROM {self._lines} LIMIT 0").columns
        self._content = self._content_of(self._lines)
        self._keys = _row(f"SELECT count(DISTINCT l_orderkey) FROM {self._lines}")

    def check(self, peer: str, work: str, run: Run) -> None:
        """SystemExit where the answer of a run is not DuckDB's."""
        wrong = self._wrong_files(run.folder) if work == "files" else self._wrong_table(work, run.answer)
        if wrong:
            raise SystemExit(f"the answer of {peer} to {work} is wrong: {wrong}")

    def _wrong_table(self, work: str, answer: pa.Table | None) -> str | None:
        if answer is None:
            return "there is none"
        given, right = _ordered(answer), self._right[work]
        for name in ("key", "count"):
            if not given[name].equals(right[name]):
                return f"a {name} among its {len(given):,} rows, where {len(right):,} are right"
        off_by = pc.abs(pc.subtract(given["sum"], right["sum"]))
        within = pc.less_equal(off_by, pc.multiply(pc.abs(right["sum"]), TOLERANCE))
        return None if pc.all(within, skip_nulls=False).as_py() else "a sum"

    def _wrong_files(self, folder: Path) -> str | None:
        """Every row is there once in all its columns, and every key in one file only, or folder of files."""
        written = f"read_parquet('{folder}/**/*.parquet', filename = true, hive_partitioning = false)"
        content = self._content_of(written)
        if content != self._content:
            return f"rows and their hashes are {content}, {self._content} is right"
        places = "regexp_replace(filename, '/part=([0-9]+)/.*', '/\\1')"
        sql = f"SELECT sum(n), count(*) FROM (SELECT count(DISTINCT l_orderkey) AS n FROM {written} GROUP BY {places})"
        keys, partitions = _row(sql)
        if (keys,) != self._keys or partitions != FILES:
            return f"{keys} keys in {partitions} files, {self._keys} in {FILES} is right"
        return None

    def _content_of(self, rows: str) -> tuple[object, ...]:
        columns = ", ".join(self._names)
        return _row(f"SELECT count(*), sum(hash({columns})::HUGEINT) FROM {rows}")


def _table(sql: str) -> pa.Table:
    return duckdb.sql(sql).to_arrow_table()


def _row(sql: str) -> tuple[object, ...]:
    row: tuple[object, ...] = duckdb.sql(sql).fetchall()[0]
    return row


def _ordered(table: pa.Table) -> pa.Table:
    """Key, sum and count in types that all peers' answers are cast to, in order of the key."""
    key = pa.int64() if pa.types.is_integer(table.schema.types[0]) else pa.string()
    schema = pa.schema([("key", key), ("sum", pa.float64()), ("count", pa.int64())])
    return table.rename_columns(schema.names).cast(schema).sort_by("key").combine_chunks()


def measure_work(work: str, peers: Sequence[PeerProcess], answers: Answers, rounds: int, rng: random.Random) -> None:
    able = [peer for peer in peers if work in peer.works]
    silent: list[str] = []

    def turn(peer: PeerProcess) -> tuple[float, float]:
        run = peer.run(work)
        answers.check(peer.name, work, run)
        shutil.rmtree(run.folder)
        return run.seconds, run.cpu_s

    first = {}
    for peer in able:
        try:
            first[peer.name] = turn(peer)
        except PeerSilent:
            silent.append(peer.name)
            peer.works = []  # nor is it asked for another work
    able = [peer for peer in able if peer.name in first]
    taken: dict[str, list[tuple[float, float]]] = {peer.name: [] for peer in able}
    for _ in range(rounds):
        for peer in rng.sample(able, len(able)):
            taken[peer.name].append(turn(peer))
    seconds = {name: statistics.median(run[0] for run in runs) for name, runs in taken.items()}
    print(f"{work}: {WORKS[work]}")
    for name, runs in taken.items():
        cpu_s, each_s = statistics.median(run[1] for run in runs), [run[0] for run in runs]
        print(
            f"  {name:8} {seconds[name]:7.3f} s ({min(each_s):.3f} to {max(each_s):.3f}), {cpu_s:7.2f} s of CPU, "
            f"first run {first[name][0]:7.3f} s, {seconds[name] / seconds['sabot']:6.2f} x ours"
        )
    for peer in peers:
        if peer not in able:
            print(f"  {peer.name:8} {f'no answer in {ANSWER_S_MAX:.0f} s' if peer.name in silent else 'cannot'}")
    for name, their_s in seconds.items():
        if (work, name) in WANTED:
            print(f"  {their_s / seconds['sabot']:.2f} x as fast as {name}; wanted: {WANTED[work, name]:.2f}")


def measure_works(
    works: Sequence[str],
    interpreters: dict[str, Path],
    tables: tuple[Sequence[Path], Sequence[Path]],
    *,
    rounds: int,
    rng: random.Random,
) -> None:
    lineitem, orders = tables
    answers = Answers(lineitem, orders)
    with ExitStack() as stack:
        peers = []
        for name, python in interpreters.items():
            script = Path(__file__).parent / "peers" / f"tpch_{name}.py"
            peer = PeerProcess(name, [python, script, "--lineitem", *lineitem, "--orders", *orders])
            peers.append(stack.enter_context(peer))
        for work in works:
            measure_work(work, peers, answers, rounds, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peers", type=Path, help="an interpreter with the peers")
    parser.add_argument("--only", nargs="+", choices=[*WORKS, *OTHERS], default=[*WORKS, *OTHERS])
    parser.add_argument("--with", nargs="+", choices=PEERS, default=PEERS, dest="chosen", help="these peers only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print_machine(options.seed)
    lineitem, orders = plain_files(options.data, "lineitem"), plain_files(options.data, "orders")
    if "overhead" in options.only:
        measure_overhead(options.rounds)
    works = [work for work in WORKS if work in options.only]
    if works:
        interpreters = {"sabot": Path(sys.executable)}
        if options.peers is not None:
            interpreters |= {name: options.peers for name in PEERS if name in options.chosen}
        measure_works(works, interpreters, (lineitem, orders), rounds=options.rounds, rng=rng)
    if "kills" in options.only:
        measure_kills(lineitem, orders, options.kills, rng)


if __name__ == "__main__":
    main()
