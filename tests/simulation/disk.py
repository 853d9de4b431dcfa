"""Where the jobs of one cluster write their files: a real folder that all agents see, as long as the run lasts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sabot.agent.files.publish import complete_around
from sabot.dataflow.stage import WriteOutput

EARLIER = "earlier.parquet"


class Disk:
    def __init__(self) -> None:
        self._root: Path | None = None

    def folder(self, job_id: str, *, earlier: bool) -> str:
        """For a job to write to; where there is something `earlier` it has one file."""
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="sabot-simulation-"))
        folder = self._root / job_id
        if earlier:
            folder.mkdir()
            pq.write_table(pa.table({"row": pa.array([], pa.int64())}), folder / EARLIER)
        return str(folder)

    def remove(self) -> None:
        if self._root is not None:
            shutil.rmtree(self._root)


def rows_in(output: WriteOutput, *, complete: bool) -> tuple[bool, list[int] | None]:
    """Whether what was there earlier is, and the rows of the files that a reader sees, None where there are none.
    `complete`: as a reader who finds out that they are being published.
    """
    folder = Path(output.folder)
    if complete:
        complete_around(output.folder)
    files = sorted(path for path in folder.glob("*") if not path.name.startswith("."))
    written = [path for path in files if path.name != EARLIER]
    rows = [row for path in written for row in pq.ParquetFile(path).read()["row"].to_pylist()]
    return len(files) > len(written), rows if written else None


def left_in(output: WriteOutput) -> list[str]:
    """What jobs have hidden there."""
    return sorted(path.name for path in Path(output.folder).glob(".*"))
