"""What may be in a folder that jobs have written to, one after the other or at the same time: each that has succeeded
is there once and whole, and they came in some order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path

import pyarrow.parquet as pq

from sabot.agent.files.publish import complete_around
from sabot.dataflow.stage import WriteOutput

from .disk import EARLIER_ROW
from .jobs import MARK, place_of

Contents = dict[str, list[int]]
"""Rows without their marks, by the folder that they are in; one without rows may have a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What one job writes, and whether it has told its client so: None where it may have published or not."""

    output: WriteOutput
    rows: Sequence[int]
    published: bool | None

    def parts(self) -> Contents:
        """The folders that it gives files to. A dataset without rows has a file where it has no folders."""
        parts: Contents = {} if self.output.partitioning else {"": []}
        for row in self.rows:
            parts.setdefault(place_of(self.output, row), []).append(row)
        return parts


def contents(folder: str, *, complete: bool) -> Contents:
    """What a reader sees; `complete`: one who finds out that files are being published."""
    if complete:
        complete_around(folder)
    found: Contents = {}
    for path in sorted(Path(folder).rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not inside.parts[0].startswith("."):
            place = inside.parent.as_posix().removeprefix(".")
            rows = pq.ParquetFile(path).read()["row"].to_pylist()
            found.setdefault(place, []).extend(row % MARK if row != EARLIER_ROW else row for row in rows)
    return {place: sorted(rows) for place, rows in found.items()}


def left_of(folder: str, job_id: str) -> list[str]:
    """What the job has hidden there."""
    return sorted(path.name for path in Path(folder).glob(".*") if job_id in path.name or "manifest" in path.name)


def is_possible(found: Contents, earlier: bool, jobs: Sequence[Written]) -> bool:
    """Whether there is an order in which some of the jobs, and among them all that have published, leave just that."""
    start = {place_of(jobs[0].output, 0): [EARLIER_ROW]} if earlier else {}
    sure = [job for job in jobs if job.published]
    perhaps = [job for job in jobs if job.published is None]
    some = (sure + list(more) for count in range(len(perhaps) + 1) for more in combinations(perhaps, count))
    return any(_after(start, order) == found for published in some for order in permutations(published))


def _after(start: Contents, order: Iterable[Written]) -> Contents | None:
    """What the jobs leave when they publish in that order; None where one of them would have refused to."""
    there = dict(start)
    for job in order:
        behavior, parts = job.output.existing_data_behavior, job.parts()
        if behavior == "error" and there:
            return None
        if behavior == "delete_matching":
            there = {place: rows for place, rows in there.items() if place not in parts and "" not in parts}
        for place, rows in parts.items():
            there[place] = sorted([*there.get(place, []), *rows])
    return there
