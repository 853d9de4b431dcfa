"""A dataset that appears whole or not at all: its files are made in a hidden folder and moved into place at the end.

A later coordinator takes the folder over by giving it its own name, so that an earlier one finds nothing of it.
Which files are to appear stands in a manifest, made once: whoever finds it moves the rest of exactly these.

Used on the coordinator's agent only, in a plain thread, one call at a time; each call may block on the disk.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sabot.agent.owner_table import EPOCHS_OF_A_COORDINATOR
from sabot.agent.task_output import hidden_folder
from sabot.errors import PeerError, UsageError

_DISCARD_TRIES = 20
_DISCARD_PAUSE_S = 0.1


class OutputFolder:
    """The target of one job's WriteOutput, for the coordinator that begins with `epoch`."""

    def __init__(self, folder: str, job_id: str, epoch: int = 0) -> None:
        self._folder = Path(folder)
        self._earlier = [hidden_folder(folder, job_id, earlier) for earlier in earlier_epochs(epoch)]
        self._hidden = hidden_folder(folder, job_id, epoch)
        self._made: list[Path] = []

    @property
    def _manifest(self) -> Path:
        return self._hidden / "manifest.json"

    def open(self) -> None:
        """Makes the hidden folder, or takes that of an earlier coordinator over; UsageError where the target holds
        something of others already or cannot be made.
        """
        if not self._folder.is_absolute():
            raise UsageError(f"the folder {self._folder} to write to is relative; pass it as an absolute path")
        for earlier in self._earlier:
            with suppress(FileNotFoundError):
                earlier.rename(self._hidden)
                break
        if not self._manifest.exists():
            self._check_empty()
        try:
            missing = [folder for folder in (self._hidden, *self._hidden.parents) if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True)
                self._made.append(folder)
        except OSError as error:
            raise UsageError(f"the folder {self._hidden} cannot be made: {error}", path=str(self._folder)) from error

    def _check_empty(self) -> None:
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

    def publish(self, files: Sequence[str]) -> None:
        """Moves the files, named by their paths in the hidden folder, into place; where one is missing none is moved.

        Where an earlier coordinator has begun to, its files are the dataset, and those that it has not moved follow.
        """
        if not self._manifest.exists():
            for file in files:
                if not (self._hidden / file).is_file():
                    raise PeerError(
                        f"the file {self._hidden / file} was written by another agent and is not seen by this one; "
                        "write to a folder that every agent finds under the same path",
                        path=str(self._hidden / file),
                    )
            self._write_manifest(files)
        moved: list[tuple[Path, Path]] = []
        try:
            for file in json.loads(self._manifest.read_text()):
                source = self._hidden / file
                target = self._folder.joinpath(*Path(file).parts[1:])  # without the attempt's folder
                if source.is_file() or not target.is_file():  # else it was moved before
                    source.rename(target)
                    moved.append((target, source))
        except OSError:
            for target, source in moved:
                with suppress(OSError):  # a later coordinator has the folder, and goes on with the manifest
                    target.rename(source)
            raise
        self._made = []

    def _write_manifest(self, files: Sequence[str]) -> None:
        """Whole or not at all, and never over another."""
        draft = self._hidden / "manifest.draft"
        with draft.open("w") as out:
            json.dump(list(files), out)
            out.flush()
            os.fsync(out.fileno())
        with suppress(FileExistsError):
            self._manifest.hardlink_to(draft)

    def discard(self) -> None:
        """Removes what is not published, and the folders made for it; waits a little for a task that still writes.

        What a later coordinator has taken over is not touched.
        """
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


def earlier_epochs(epoch: int) -> range:
    """The first epochs of the coordinators before that of `epoch`, the latest first."""
    return range(epoch - EPOCHS_OF_A_COORDINATOR, -1, -EPOCHS_OF_A_COORDINATOR)
