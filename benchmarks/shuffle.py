"""The shuffle: its scatter next to `Table.take`, its transport next to bare Flight, and whole next to Dask and Daft.

`python benchmarks/shuffle.py --data DIR [--peers PYTHON] [--only scatter|transport|whole|audit] [--rounds N]`

DIR holds TPC-H's lineitem as Parquet (`pip install tpchgen-cli`; `tpchgen-cli parquet -s 1 --tables=lineitem --parts=8
--output-dir=DIR`). PYTHON is an interpreter that has `dask[dataframe,distributed]` and `daft[ray]`; without it the
peers are left out. Every ratio is of medians of runs in turns.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from measuring import in_turns, print_machine, timed
from native_part import built
from plain_tables import plain_files
from shuffle_agent import SCATTER_BYTES, BenchAgent, both

from sabot.native._native import hash_keys, partition_of, scatter

PARTITIONS = 16
KEY = "l_orderkey"
CHUNK_BYTES = 4 << 20
TRANSPORT_BYTES = 1 << 30


def measure_scatter(files: list[Path], rounds: int, rng: random.Random) -> None:
    """One core: our scatter as tasks do it, 32 MiB of rows at a time and each let go as if sent, so that the next is
    written where it was; and `take` with the order known beforehand, which has nothing to write to but fresh memory.
    """
    pa.set_cpu_count(1)
    table = pa.concat_tables([pq.read_table(file) for file in files]).combine_chunks()
    (whole,) = table.to_batches()
    order = pc.array_sort_indices(partition_of(hash_keys(whole, [KEY]), PARTITIONS))
    rows = max(1, SCATTER_BYTES * whole.num_rows // whole.nbytes)
    pieces = [whole.slice(start, rows) for start in range(0, whole.num_rows, rows)]
    owners = [partition % 2 for partition in range(PARTITIONS)]

    def scatter_all() -> None:
        for piece in pieces:
            scatter([piece], [KEY], PARTITIONS, owners, 1, CHUNK_BYTES)

    def scatter_and_keep() -> None:
        kept = [scatter([piece], [KEY], PARTITIONS, owners, 1, CHUNK_BYTES) for piece in pieces]
        del kept

    cases = {
        "scatter": timed(scatter_all),
        "scatter, all kept": timed(scatter_and_keep),
        "Table.take": timed(lambda: table.take(order)),
    }
    took = {name: statistics.median(seconds) for name, seconds in in_turns(cases, rounds, rng).items()}
    print(f"scatter of {whole.num_columns} columns, {whole.nbytes / 1e6:.0f} MB, into {PARTITIONS} partitions:")
    for name, seconds in took.items():
        print(f"  {name:17} {seconds * 1e3:7.1f} ms, {whole.nbytes / seconds / 1e9:.2f} GB/s")
    print(f"  scatter is {took['Table.take'] / took['scatter']:.2f} x as fast as take; wanted: 3.5")


@contextmanager
def bare_server(binary: Path, mode: str) -> Iterator[int]:
    process = subprocess.Popen([binary, "serve", mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(30)


def chunk_files(folder: Path, lineitem: Path) -> dict[str, tuple[Path, int, int]]:
    """Chunks as IPC files, with how many make some TRANSPORT_BYTES, and their bytes: numbers alone, whose rows are as
    small as rows get, and rows of lineitem."""
    table = pq.read_table(lineitem)
    rows = table.slice(0, CHUNK_BYTES * table.num_rows // table.nbytes).combine_chunks().to_batches()[0]
    numbers = pa.record_batch({"x": pa.array(range(CHUNK_BYTES // 8), pa.int64())})
    files = {}
    for name, batch in {"one int64 column": numbers, f"lineitem's {rows.num_columns} columns": rows}.items():
        path = folder / f"{batch.num_columns}.arrow"
        with pa.ipc.new_file(path, batch.schema) as writer:
            writer.write(batch)
        files[name] = (path, TRANSPORT_BYTES // batch.nbytes, batch.nbytes)
    return files


class Transport:
    """Chunks of one agent to another's store, as cases that give seconds."""

    def __init__(self, stack: ExitStack, chunk: Path, count: int) -> None:
        self._chunk, self._count = chunk, count
        self._agents = [BenchAgent(), BenchAgent()]
        for agent in self._agents:
            stack.callback(agent.close)
        self._shuffles = 0

    def __call__(self) -> float:
        sender, receiver = self._agents
        self._shuffles += 1
        name = f"transport-{self._shuffles}"
        addresses = [agent.address for agent in self._agents]
        for agent in self._agents:
            agent.ask("start", name, 2, addresses, None)
        start_s = time.perf_counter()
        sender.ask("send_chunks", name, self._count, self._chunk, receiver.address)
        took_s = time.perf_counter() - start_s
        for agent in self._agents:
            agent.ask("end", name)
        return took_s

    def beside_loop(self, where: BenchAgent | None) -> float:
        """The same while a Python loop runs in the receiver's slot, or in another process."""
        looping = where or self._agents[1]
        looping.ask("loop", True)
        try:
            return self()
        finally:
            looping.ask("loop", False)


def measure_transport(files: list[Path], rounds: int, rng: random.Random) -> None:
    with TemporaryDirectory() as folder:
        for rows, chunk in chunk_files(Path(folder), files[0]).items():
            measure_transport_of(rows, chunk, rounds, rng)


def measure_transport_of(rows: str, chunk: tuple[Path, int, int], rounds: int, rng: random.Random) -> None:
    path, count, chunk_bytes = chunk
    num_bytes = count * chunk_bytes
    binary = built("flight_bench")
    with ExitStack() as stack:
        ours = Transport(stack, path, count)
        bystander = BenchAgent()
        stack.callback(bystander.close)
        cases: dict[str, Callable[[], float]] = {
            "Sabot": ours,
            "Sabot, loop in its slot": lambda: ours.beside_loop(None),
            "Sabot, loop elsewhere": lambda: ours.beside_loop(bystander),
        }
        for mode in ("keep", "drop") if binary else ():
            assert binary is not None
            port = stack.enter_context(bare_server(binary, mode))
            command = [binary, "send", str(port), str(count), str(path)]
            cases[f"bare Flight, {mode}"] = lambda command=command: float(subprocess.check_output(command, text=True))  # type: ignore[misc]
        took = {name: statistics.median(seconds) for name, seconds in in_turns(cases, rounds, rng).items()}
    print(f"transport of {num_bytes / 1e9:.2f} GB in {count} chunks, {rows}, to where it is kept:")
    for name, seconds in took.items():
        print(f"  {name:24} {seconds * 1e3:7.0f} ms, {num_bytes / seconds / 1e9:.2f} GB/s")
    wanted = [
        ("Sabot", "bare Flight, keep", 1.0),
        ("Sabot", "bare Flight, drop", 0.8),
        ("Sabot, loop in its slot", "Sabot, loop elsewhere", 0.9),
    ]
    for name, other, at_least in wanted:
        if other in took:
            print(f"  {name}: {took[other] / took[name]:.2f} x the speed of {other}; wanted: {at_least}")


class Whole:
    """lineitem in the memory of two agents of one slot, to 16 partitions; the third run in the same agents counts."""

    def __init__(self, files: list[Path], **options: object) -> None:
        self._agents = [BenchAgent(files[index::2], **options) for index in range(2)]
        self._runs = 0
        self.rows: int = sum(agent.ask("count_rows") for agent in self._agents)

    def run(self) -> tuple[float, float]:
        """Seconds, and CPU seconds of both agents."""
        self._runs += 1
        name = f"whole-{self._runs}"
        addresses = [agent.address for agent in self._agents]
        for agent in self._agents:
            agent.ask("start", name, PARTITIONS, addresses, KEY)
        cpu_s = -sum(agent.ask("cpu_s") for agent in self._agents)
        start_s = time.perf_counter()
        mine = [list(range(index, PARTITIONS, 2)) for index in range(2)]
        rows = both(self._agents, lambda index, agent: agent.tell("shuffle", name, mine[index]))
        took_s = time.perf_counter() - start_s
        cpu_s += sum(agent.ask("cpu_s") for agent in self._agents)
        assert sum(rows) == self.rows, f"{sum(rows)} rows of {self.rows}"
        for agent in self._agents:
            agent.ask("end", name)
        return took_s, cpu_s

    def close(self) -> None:
        for agent in self._agents:
            agent.close()


def ours_whole(files: list[Path]) -> list[float]:
    whole = Whole(files)
    try:
        return [whole.run()[0] for _ in range(3)]
    finally:
        whole.close()


def peer_whole(python: Path, script: str, files: list[Path]) -> list[float]:
    command = [python, Path(__file__).parent / "peers" / script, *files, "--key", KEY, "--partitions", str(PARTITIONS)]
    environment = {**os.environ, "RAY_DISABLE_IMPORT_WARNING": "1", "DAFT_PROGRESS_BAR": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr[-3000:]}")
    return [float(line) for line in done.stdout.split()[-3:]]


def measure_whole(files: list[Path], peers: Path | None, rounds: int, rng: random.Random) -> None:
    cases: dict[str, Callable[[], list[float]]] = {"Sabot": lambda: ours_whole(files)}
    if peers is not None:
        cases["Dask P2P, 2 x 1"] = lambda: peer_whole(peers, "dask_shuffle.py", files)
        cases["Daft on Ray"] = lambda: peer_whole(peers, "daft_shuffle.py", files)
    runs = in_turns(cases, rounds, rng)
    third = {name: statistics.median(seconds[2] for seconds in each) for name, each in runs.items()}
    print(f"lineitem in memory into {PARTITIONS} partitions, 2 agents x 1 slot:")
    for name, each in runs.items():
        first = statistics.median(seconds[0] for seconds in each)
        print(
            f"  {name:16} third run {third[name]:6.2f} s, first {first:6.2f}, {third[name] / third['Sabot']:.1f} x ours"
        )
    print("  wanted: Dask 6 x, Daft 2.5 x, ours 0.6 s where Dask takes 4.5")


def measure_audit(files: list[Path], rounds: int, rng: random.Random) -> None:
    """What the audit adds to the CPU time of both agents; after two runs that warm them up."""
    with ExitStack() as stack:
        on, off = Whole(files), Whole(files, audit=False)
        cases: dict[str, Callable[[], tuple[float, float]]] = {"on": on.run, "off": off.run}
        for whole in (on, off):
            stack.callback(whole.close)
            whole.run()
        runs = in_turns(cases, rounds, rng)
    cpu_s = {name: statistics.median(run[1] for run in each) for name, each in runs.items()}
    print("the same, CPU seconds of both agents with the audit on and off:")
    for name, each in runs.items():
        print(f"  {name:3} {cpu_s[name]:6.2f} s of CPU, {statistics.median(run[0] for run in each):6.2f} s")
    print(f"  the audit is {(cpu_s['on'] - cpu_s['off']) / cpu_s['on']:.1%} of it; wanted: at most 8%")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peers", type=Path, help="an interpreter with Dask and Daft")
    parser.add_argument("--only", choices=["scatter", "transport", "whole", "audit"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    print_machine(options.seed)
    files = plain_files(options.data, "lineitem")
    if options.only in (None, "scatter"):
        measure_scatter(files, options.rounds, rng)
    if options.only in (None, "transport"):
        measure_transport(files, options.rounds, rng)
    if options.only in (None, "whole"):
        measure_whole(files, options.peers, options.rounds, rng)
    if options.only in (None, "audit"):
        measure_audit(files, options.rounds, rng)


if __name__ == "__main__":
    main()
