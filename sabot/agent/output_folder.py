"""A dataset that appears whole or not at all: its files are made in a hidden folder and moved into place at the end.

Used on the coordinator's agent only, in a plain thread, one call at a time; each call may block on the disk.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from sabot.agent.task_output import hidden_folder
from sabot.errors import PeerError, UsageError

_DISCARD_TRIES = 20
_DISCARD_PAUSE_S = 0.1


class OutputFolder:
    """The target of one job's WriteOutput."""

    def __init__(self, folder: str, job_id: str) -> None:
        self._folder = Path(folder)
        self._hidden = hidden_folder(folder, job_id)
        self._made: list[Path] = []

    def open(self) -> None:
        """Makes the hidden folder; UsageError where the target holds something already or cannot be made."""
        if not self._folder.is_absolute():
            raise UsageError(f"the folder {self._folder} to write to is relative; pass it as an absolute path")
        try:
            present = sorted(entry.name for entry in self._folder.iterdir() if not entry.name.startswith("."))
        except FileNotFoundError:
            present = []
        except OSError as error:
            raise UsageError(
                f"{self._folder} cannot be written to as a folder: {error}", path=str(self._folder)
            ) from error
        if present:
            raise UsageError(
                f"the folder {self._folder} to write to is not empty, it holds {present[0]}; "
                "remove what is there or name another folder",
                path=str(self._folder),
            )
        try:
            missing = [folder for folder in (self._hidden, *self._hidden.parents) if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True)
                self._made.append(folder)
        except OSError as error:
            raise UsageError(f"the folder {self._hidden} cannot be made: {error}", path=str(self._folder)) from error

    def publish(self, files: Sequence[str]) -> None:
        """Moves the files into place; where one is missing none is moved."""
        sources = [Path(file) for file in files]
        for source in sources:
            if not source.is_file():
                raise PeerError(
                    f"the file {source} was written by another agent and is not seen by this one; "
                    "write to a folder that every agent finds under the same path",
                    path=str(source),
                )
        moved: list[tuple[Path, Path]] = []
        try:
            for source in sources:
                target = self._folder / source.name
                source.rename(target)
                moved.append((target, source))
        except OSError:
            for target, source in moved:
                target.rename(source)
            raise
        self._made = []
        shutil.rmtree(self._hidden, ignore_errors=True)

    def discard(self) -> None:
        """Removes what is not published, and the folders made for it; waits a little for a task that still writes."""
        for _ in range(_DISCARD_TRIES):
            shutil.rmtree(self._hidden, ignore_errors=True)
            if not self._hidden.exists():
                break
            time.sleep(_DISCARD_PAUSE_S)
        for folder in reversed(self._made):
            try:
                folder.rmdir()
            except OSError:
                continue
        self._made = []
