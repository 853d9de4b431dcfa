"""Ten TPC-H queries over two agents, each with its time and DuckDB's opinion of the answer.

`python -m examples.tpch [--scale 0.1] [--agent HOST:PORT] [--query N ...]`, from the folder that has `examples`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

import sabot
from sabot.client.session import Session

from .answers import duckdb_answers, same_rows
from .queries import QUERIES
from .tables import make_tables, read_tables


def run_queries(console: Console, session: Session, folder: Path, numbers: list[int]) -> bool:
    """Runs and shows them; whether all answers are DuckDB's."""
    tables = read_tables(session, folder)
    expected = duckdb_answers(folder, numbers)
    shown = Table(title="TPC-H", box=box.SIMPLE)
    for heading in ("query", "rows", "seconds", "shuffled rows", "lost", "doubled", "DuckDB's answer"):
        shown.add_column(heading, justify="right")
    all_same = True
    for number in numbers:
        started_s = time.perf_counter()
        with QUERIES[number](tables).run() as result:
            answer = result.to_table()
            took_s = time.perf_counter() - started_s
            same = same_rows(answer, expected[number])
            all_same = all_same and same
            counts = (result.receipt.rows_in, result.receipt.lost, result.receipt.doubled)
            texts = [f"{count:,}" for count in counts]
            shown.add_row(str(number), f"{answer.num_rows:,}", f"{took_s:.2f}", *texts, "yes" if same else "NO")
    console.print(shown)
    return all_same


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.tpch", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scale", type=float, default=0.1, help="size of the data; 1 is 1 GB")
    parser.add_argument("--agent", metavar="HOST:PORT", help="control port of a running cluster; default: two agents")
    parser.add_argument("--query", type=int, action="append", choices=sorted(QUERIES), help="default: all")
    parser.add_argument("--data", type=Path, help="folder for the data, seen by all agents; default: .demo/tpch-SCALE")
    arguments = parser.parse_args()
    folder = make_tables((arguments.data or Path(f".demo/tpch-{arguments.scale:g}")).absolute(), arguments.scale)
    numbers = arguments.query or sorted(QUERIES)
    console = Console()
    if arguments.agent:
        with sabot.connect(arguments.agent) as session:
            fine = run_queries(console, session, folder, numbers)
    else:
        with sabot.LocalCluster(agents=2, slots=1) as cluster, cluster.connect() as session:
            fine = run_queries(console, session, folder, numbers)
    if not fine:
        raise SystemExit("an answer is not DuckDB's")


if __name__ == "__main__":
    main()
