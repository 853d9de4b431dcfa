"""Where the jobs of one cluster write their files: real folders that all agents see, as long as the run lasts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

EARLIER = "earlier.parquet"
EARLIER_ROW = -1


class Disk:
    def __init__(self) -> None:
        self._root: Path | None = None

    def folder(self, job_id: str, *, earlier: str | None) -> str:
        """For a job to write to; where there is something `earlier` it has one file, in that folder of it."""
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="sabot-simulation-"))
        folder = self._root / job_id
        if earlier is not None:
            (folder / earlier).mkdir(parents=True)
            pq.write_table(pa.table({"row": pa.array([EARLIER_ROW], pa.int64())}), folder / earlier / EARLIER)
        return str(folder)

    def remove(self) -> None:
        if self._root is not None:
            shutil.rmtree(self._root)
