"""TPC-H's tables as Parquet files, made by tpchgen-cli, and as Datasets of a session."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sabot.client.session import Session
from sabot.dataflow.dataset import Dataset

FILES = 8
_SMALL = ("nation", "region")


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The eight tables; what a query does not use of them is not read."""

    customer: Dataset
    lineitem: Dataset
    nation: Dataset
    orders: Dataset
    part: Dataset
    partsupp: Dataset
    region: Dataset
    supplier: Dataset


NAMES = tuple(field.name for field in fields(Tables))


def read_tables(session: Session, folder: Path) -> Tables:
    """The tables that `make_tables` has written."""
    return Tables(**{name: session.read_parquet(str(folder / name / "*.parquet")) for name in NAMES})


def make_tables(folder: Path, scale: float) -> Path:
    """Writes the tables at `scale` (1 is 1 GB) into `folder`, once, the larger ones as eight files; returns it."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        for name in NAMES:
            _make_table(partial, name, scale)
        partial.chmod(0o755)  # agents may run as somebody else
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _make_table(folder: Path, name: str, scale: float) -> None:
    parts = [] if name in _SMALL else [f"--parts={FILES}"]
    command = [_generator(), "parquet", "-s", str(scale), f"--tables={name}", *parts, f"--output-dir={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    if not parts:
        (folder / name).mkdir()
        (folder / f"{name}.parquet").rename(folder / name / f"{name}.parquet")
    for file in (folder / name).glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.cast(pa.schema([(field.name, _plain(field.type)) for field in table.schema])), file)


def _generator() -> str:
    """tpchgen-cli, which may stand beside this interpreter without being on the path."""
    found = shutil.which("tpchgen-cli") or shutil.which("tpchgen-cli", path=sysconfig.get_path("scripts"))
    if found is None:
        raise SystemExit("The data are made by tpchgen-cli; install it: python -m pip install tpchgen-cli")
    return found


def _plain(kind: pa.DataType) -> pa.DataType:
    """Text as `string`: pyarrow's comparisons do not take the views that the generator writes."""
    return pa.string() if pa.types.is_string_view(kind) else kind
