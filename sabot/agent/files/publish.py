"""How files appear in a folder all together: decided by one manifest, which is made exclusively and in one step.

Files wait in a hidden folder beside their places. Once `MANIFEST` stands in the folder they are published: whoever
finds it carries out the moves that it lists, in any number of processes at once, after a crash at any point. Without it
nothing is. A job's hidden folder is gone before its manifest is, so that no job is published twice. Plain local paths
only; each call may block on the disk.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from sabot.agent.coordination.owner_table import coordinator_of
from sabot.errors import InternalError, PeerError, UsageError

MANIFEST = ".sabot-manifest"
HIDDEN = ".sabot-"
_RECORD = ".sabot-published-"
_GONE = ".sabot-gone-"
_TRASH = "replaced"
_VERDICT = "verdict"
_BEGUN, _REFUSED = "begun", "refused"

Existing = Literal["error", "overwrite_or_ignore", "delete_matching"]
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a job publishes: `moves` from its hidden folder to the folder, as relative paths; `epoch` is that of the
    coordinator which was granted the publish.
    """

    job_id: str
    epoch: int
    existing: Existing
    moves: tuple[tuple[str, str], ...]


def hidden_folder(folder: str | Path, job_id: str, epoch: int = 0) -> Path:
    """Where a job's files lie until it has succeeded: inside the target, so that moving them stays on one disk. Each
    coordinator of the job has a name of its own for it.
    """
    number = coordinator_of(epoch)
    return Path(folder) / (f"{HIDDEN}{job_id}-{number}" if number else f"{HIDDEN}{job_id}")


def publish(folder: Path, manifest: Manifest, *, step: Step = lambda _: None) -> Manifest:
    """Publishes, unless the job is published already: gives the manifest that decided. UsageError where the folder must
    be empty and is not. `step` is told what is about to be done.
    """
    while (earlier := published(folder, manifest.job_id)) is None:
        _complete_others(folder, manifest.job_id)
        step("decide")
        if _decide(folder, manifest):
            step("decided")
            complete(folder, step=step)
            if published(folder, manifest.job_id) is None:
                raise not_empty(folder)
    complete(folder, step=step)
    return earlier


def published(folder: Path, job_id: str) -> Manifest | None:
    """The manifest by which the job is published, carried out or not; None where it is not, or is forgotten."""
    standing = _read(folder / MANIFEST)  # first: it becomes the record
    if standing is not None and standing.job_id == job_id:
        return standing
    return _read(folder / f"{_RECORD}{job_id}")


def forget(folder: Path, job_id: str) -> bool:
    """Removes the record of a job's publish: nobody will ask any more. False where it is not carried out yet."""
    standing = _read(folder / MANIFEST)
    if standing is not None and standing.job_id == job_id:
        return False
    (folder / f"{_RECORD}{job_id}").unlink(missing_ok=True)
    return True


def complete(folder: Path, *, step: Step = lambda _: None) -> None:
    """Carries out a publish that has been decided, if there is one. Many may do so at once."""
    while (manifest := _read(folder / MANIFEST)) is not None:
        hidden = _hidden_now(folder, manifest)
        try:
            _carry_out(folder, hidden, manifest, step)
        except OSError as error:
            if _read(folder / MANIFEST) != manifest or (hidden is not None and not hidden.exists()):
                continue  # another was faster, or another coordinator has renamed the hidden folder
            if isinstance(error, FileNotFoundError):
                raise InternalError(f"a file of a dataset being published in {folder} is missing: {error}") from error
            raise UsageError(
                f"a dataset is published in {folder}, and that cannot go on: {error}; make the folder writable and "
                "what is named free, then read or write it again",
                path=str(folder),
            ) from error


def complete_around(path: str) -> None:
    """As `complete`, for a path that is about to be read: it may lie anywhere in a folder that is published."""
    for folder in (Path(path), *Path(path).parents):
        if (folder / MANIFEST).exists():
            complete(folder)


def not_empty(folder: Path) -> UsageError:
    """What is said where files are in the way."""
    return UsageError(
        f"the folder {folder} to write to is not empty, it holds {', '.join(_visible(folder)[:1])}; remove what is "
        'there, name another folder, or pass existing_data_behavior="overwrite_or_ignore" or "delete_matching"',
        path=str(folder),
    )


def is_empty(folder: Path) -> bool:
    """Whether there are no files but hidden ones."""
    return not any(any(True for _ in _files_below(folder / name)) for name in _visible(folder))


def _visible(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))


def _complete_others(folder: Path, job_id: str) -> None:
    standing = _read(folder / MANIFEST)
    if standing is not None and standing.job_id != job_id:
        complete(folder)


def _decide(folder: Path, manifest: Manifest) -> bool:
    """Whether the manifest now stands; False where another one does. It appears whole: a link to a finished file."""
    draft = hidden_folder(folder, manifest.job_id, manifest.epoch) / f"manifest-{uuid.uuid4().hex}"
    try:
        with draft.open("w") as file:
            json.dump(asdict(manifest), file)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, folder / MANIFEST)
    except FileExistsError:
        return False
    except FileNotFoundError as error:
        raise PeerError(
            f"what job {manifest.job_id} has written is not in {folder} any more: another coordinator of it has "
            "published it or given it up; see whether the dataset is there, else run the job again",
            path=str(folder),
        ) from error
    except OSError as error:
        raise UsageError(
            f"a dataset cannot be published in {folder}: its file system has no hard links, by which that is decided "
            f"in one step ({error}); write to a folder on another one",
            path=str(folder),
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return True


def _hidden_now(folder: Path, manifest: Manifest) -> Path | None:
    """The job's hidden folder, under the name of who published or of who has taken it over; None where all is done."""
    prefix = f"{HIDDEN}{manifest.job_id}"
    by_number = {int(found.name.removeprefix(prefix).lstrip("-") or 0): found for found in folder.glob(f"{prefix}*")}
    return next((by_number[number] for number in sorted(by_number) if number >= coordinator_of(manifest.epoch)), None)


def _carry_out(folder: Path, hidden: Path | None, manifest: Manifest, step: Step) -> None:
    if hidden is not None:
        if _verdict(folder, hidden, manifest) == _REFUSED:
            _drop(folder, hidden, manifest)
            (folder / MANIFEST).unlink(missing_ok=True)
            return
        if manifest.existing == "delete_matching":
            _set_aside(folder, hidden, manifest, step)
        for source, target in manifest.moves:
            step(f"move {target}")
            _move(hidden / source, folder / target)
        step("drop")
        _drop(folder, hidden, manifest)
    step("record")
    (folder / MANIFEST).rename(folder / f"{_RECORD}{manifest.job_id}")
    shutil.rmtree(folder / f"{_GONE}{manifest.job_id}", ignore_errors=True)


def _verdict(folder: Path, hidden: Path, manifest: Manifest) -> str:
    """Whether files are in the way, as the first has found who asked: a symbolic link is made with what it says."""
    refused = manifest.existing == "error" and not is_empty(folder)
    with suppress(FileExistsError):
        (hidden / _VERDICT).symlink_to(_REFUSED if refused else _BEGUN)
    return str((hidden / _VERDICT).readlink())


def _set_aside(folder: Path, hidden: Path, manifest: Manifest, step: Step) -> None:
    """Takes away what earlier writes have left in the folders that get files now."""
    new = {folder / target for _, target in manifest.moves}
    trash = hidden / _TRASH
    trash.mkdir(exist_ok=True)
    for place in sorted({target.parent for target in new}):
        for old in list(_files_below(place)):
            if old in new:
                continue
            step(f"set aside {old.name}")
            try:
                # Into the hidden folder, which is gone once all is done: one who is late can take nothing away.
                old.rename(trash / uuid.uuid4().hex)
            except FileNotFoundError:
                if old.exists():
                    raise


def _files_below(place: Path) -> Iterator[Path]:
    """The file, or all in the folder, but for what jobs have hidden."""
    if not place.is_dir():
        yield from [place] if place.exists() else []
        return
    for folder, folders, files in os.walk(place):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        yield from (Path(folder) / name for name in files if not name.startswith(HIDDEN))


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except FileNotFoundError:  # another has moved it
        if source.exists() or not target.exists():
            raise


def _drop(folder: Path, hidden: Path, manifest: Manifest) -> None:
    """In one step; what a task that nobody waits for still writes goes with it."""
    gone = folder / f"{_GONE}{manifest.job_id}"
    shutil.rmtree(gone, ignore_errors=True)
    hidden.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _read(path: Path) -> Manifest | None:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None
    return Manifest(
        job_id=found["job_id"],
        epoch=found["epoch"],
        existing=found["existing"],
        moves=tuple((source, target) for source, target in found["moves"]),
    )
