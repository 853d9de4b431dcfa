"""TPC-H's tables as the benchmarks read them: Parquet with prices as floats and texts as plain strings.

Not every peer takes decimals, and each makes other types out of string views.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def plain_files(data: Path, name: str) -> list[Path]:
    """The table's files, as many as tpchgen-cli has made of it in `data`; written below `data/plain` once."""
    plain = data / "plain"
    sources = sorted((data / name).glob("*.parquet")) or sorted(data.glob(f"{name}*.parquet"))
    if not sources:
        raise SystemExit(f"{data} has no {name}/*.parquet; see --help")
    for source in sources:
        target = plain / source.name
        if target.exists():
            continue
        plain.mkdir(exist_ok=True)
        table = pq.read_table(source)
        pq.write_table(table.cast(pa.schema([pa.field(f.name, _plain(f.type)) for f in table.schema])), target)
    return [plain / source.name for source in sources]


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_decimal(kind):
        return pa.float64()
    return pa.string() if pa.types.is_string_view(kind) else kind
