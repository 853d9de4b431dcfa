"""A dataset that appears whole or not at all: its files are made in a hidden folder, and published at the end.

Used on the coordinator's agent only, in a plain thread, one call at a time; each call may block on the disk. A
coordinator that takes the job over makes its own, asks what is `published`, and else opens and publishes in its epoch.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sabot.agent.coordination.owner_table import EPOCHS_OF_A_COORDINATOR
from sabot.agent.files.publish import (
    HIDDEN,
    Existing,
    Manifest,
    Step,
    complete,
    forget,
    hidden_folder,
    is_empty,
    not_empty,
    publish,
    published,
)
from sabot.errors import PeerError, UsageError

_DISCARD_TRIES = 20
_DISCARD_PAUSE_S = 0.1
_ABANDONED_S = 7 * 24 * 3600.0


class OutputFolder:
    """The target of one job's WriteOutput, for its coordinator from `epoch` on; `step` hears what comes next."""

    def __init__(
        self,
        folder: str,
        job_id: str,
        epoch: int = 0,
        *,
        existing: Existing = "error",
        step: Step = lambda _: None,
    ) -> None:
        self._folder = Path(folder)
        self._job_id = job_id
        self._epoch = epoch
        self._existing: Existing = existing
        self._step = step
        self._made: list[Path] = []

    @property
    def hidden(self) -> Path:
        """Where the job's files lie until they are published."""
        return hidden_folder(self._folder, self._job_id, self._epoch)

    @property
    def published(self) -> Manifest | None:
        """The manifest by which a coordinator of the job has published it, with its epoch; None where none has."""
        return published(self._folder, self._job_id)

    def open(self) -> None:
        """Makes the hidden folder, or takes that of an earlier coordinator over; UsageError where the target may not be
        written to or cannot be made.
        """
        if not self._folder.is_absolute():
            raise UsageError(f"the folder {self._folder} to write to is relative; pass it as an absolute path")
        try:
            if self._folder.exists():
                complete(self._folder, step=self._step)  # what a crash has interrupted
                self._sweep()
            if self._folder.exists() and self.published is None:
                self._step("take over")
                for earlier in earlier_epochs(self._epoch):
                    with suppress(FileNotFoundError):
                        hidden_folder(self._folder, self._job_id, earlier).rename(self.hidden)
                        break
                if self._existing == "error" and not is_empty(self._folder):
                    raise not_empty(self._folder)
        except OSError as error:
            raise UsageError(
                f"{self._folder} cannot be written to as a folder: {error}", path=str(self._folder)
            ) from error
        self._step("make")
        try:
            missing = [folder for folder in (self.hidden, *self.hidden.parents) if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True)
                self._made.append(folder)
        except OSError as error:
            raise UsageError(f"the folder {self.hidden} cannot be made: {error}", path=str(self._folder)) from error

    def publish(self, files: Sequence[str]) -> None:
        """Makes the files appear, each at its path in the hidden folder less the first folder of that. Where one is
        missing none does. Where the job is published already, by whatever coordinator, nothing more appears.
        """
        if self.published is None:
            for file in files:
                if not (self.hidden / file).is_file():
                    raise PeerError(
                        f"the file {self.hidden / file} was written by another agent and is not seen by this one; "
                        "write to a folder that every agent finds under the same path",
                        path=str(self.hidden / file),
                    )
        moves = tuple((file, file.split("/", 1)[1]) for file in files)
        manifest = Manifest(job_id=self._job_id, epoch=self._epoch, existing=self._existing, moves=moves)
        publish(self._folder, manifest, step=self._step)
        self._made = []

    def discard(self) -> None:
        """The job has ended, and its client knows how. Removes what is not published, and the folders made for it;
        waits a little for a task that still writes. What a later coordinator has taken over is not touched.
        """
        manifest = self.published
        if manifest is not None:
            self._made = []
            if manifest.epoch > self._epoch or not forget(self._folder, self._job_id):
                return
        self._step("discard")
        for _ in range(_DISCARD_TRIES):
            shutil.rmtree(self.hidden, ignore_errors=True)
            if not self.hidden.exists():
                break
            time.sleep(_DISCARD_PAUSE_S)
        for folder in reversed(self._made):
            try:
                folder.rmdir()
            except OSError:
                continue
        self._made = []

    def _sweep(self) -> None:
        """Removes what jobs have left that nobody ended, a week after they last touched it."""
        for entry in self._folder.glob(f"{HIDDEN}*"):
            if time.time() - entry.stat().st_mtime > _ABANDONED_S:
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)


def earlier_epochs(epoch: int) -> range:
    """The first epochs of the coordinators before that of `epoch`, the latest first."""
    return range(epoch - EPOCHS_OF_A_COORDINATOR, -1, -EPOCHS_OF_A_COORDINATOR)
