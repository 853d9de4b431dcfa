"""A client's program: a job whose first stage waits for a file, `python held_job.py ADDRESS FOLDER`.

Every task says that it has begun by a file in FOLDER/started, and waits for FOLDER/go. The answer is printed as JSON:
rows and sum by group, or the type and text of the error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa

import sabot
from sabot.errors import SabotError
from tests.jobs.rows import make_table, write_files
from tests.jobs.test_end_to_end_failures import waits_for


def main() -> None:
    address, folder = sys.argv[1], Path(sys.argv[2])
    session = sabot.connect(address, progress=False)
    files = write_files(folder / "rows", make_table(8000))
    data = session.read_parquet(files)
    held = data.map_batches(waits_for(folder / "go", folder / "started"), schema=data.schema)
    try:
        answer = held.group_by(["k"]).aggregate([("v", "sum"), ([], "count_all")]).to_table().sort_by("k")
    except SabotError as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}))
        return
    print(json.dumps({"rows": _rows(answer)}))


def _rows(table: pa.Table) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


if __name__ == "__main__":
    main()
