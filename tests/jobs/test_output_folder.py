"""A dataset appears whole or not at all, whenever its publisher dies and whoever goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sabot.agent.coordination.owner_table import EPOCHS_OF_A_COORDINATOR
from sabot.agent.files.file_listing import list_source
from sabot.agent.files.output_folder import OutputFolder
from sabot.agent.files.publish import MANIFEST, Existing, Manifest, complete, hidden_folder, publish
from sabot.errors import PeerError, UsageError

JOB = "ab" * 16
OTHER = "cd" * 16
NEXT = EPOCHS_OF_A_COORDINATOR


def written(folder: Path, *names: str, job: str = JOB, epoch: int = 0) -> list[str]:
    for name in names:
        path = hidden_folder(folder, job, epoch) / "attempt-0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} of {job}")
    return [f"attempt-0/{name}" for name in names]


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def visible(folder: Path) -> dict[str, str]:
    """What a reader finds who goes by pyarrow's rules, by relative path."""
    listed = list_source([str(folder)]).files
    return {os.path.relpath(info.path, folder): Path(info.path).read_text() for info in listed}


def opened(folder: Path, job: str = JOB, existing: Existing = "error", epoch: int = 0) -> OutputFolder:
    target = OutputFolder(str(folder), job, epoch, existing=existing)
    target.open()
    return target


def test_nothing_is_seen_before_publish_and_all_after(tmp_path: Path) -> None:
    target = opened(tmp_path / "out")
    files = written(tmp_path / "out", "part-0", "k=1/part-1")
    assert names_in(tmp_path / "out") == [f".sabot-{JOB}"]
    target.publish(files)
    assert visible(tmp_path / "out").keys() == {"part-0", "k=1/part-1"}
    assert names_in(tmp_path / "out") == [f".sabot-published-{JOB}", "k=1", "part-0"]
    target.discard()
    assert names_in(tmp_path / "out") == ["k=1", "part-0"]


def test_discard_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    target = opened(tmp_path / "a" / "b" / "out")
    written(tmp_path / "a" / "b" / "out", "part-0")
    target.discard()
    assert names_in(tmp_path) == []


def test_discard_keeps_folders_that_others_use(tmp_path: Path) -> None:
    target = opened(tmp_path / "a" / "out")
    (tmp_path / "a" / "theirs").touch()
    target.discard()
    assert names_in(tmp_path / "a") == ["theirs"]


def test_discard_after_publish_takes_nothing_back(tmp_path: Path) -> None:
    target = opened(tmp_path / "out")
    target.publish(written(tmp_path / "out", "part-0"))
    target.discard()
    assert visible(tmp_path / "out").keys() == {"part-0"}


def test_missing_file_publishes_none(tmp_path: Path) -> None:
    target = opened(tmp_path / "out")
    files = written(tmp_path / "out", "part-0")
    with pytest.raises(PeerError, match="part-1 was written by another agent"):
        target.publish([*files, files[0].replace("part-0", "part-1")])
    assert names_in(tmp_path / "out") == [f".sabot-{JOB}"]


def test_folder_that_holds_something_is_refused_and_left(tmp_path: Path) -> None:
    (tmp_path / "theirs").touch()
    with pytest.raises(UsageError, match="not empty, it holds theirs"):
        OutputFolder(str(tmp_path), JOB).open()
    assert names_in(tmp_path) == ["theirs"]


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(UsageError, match="cannot be written to as a folder"):
        OutputFolder(str(tmp_path / "out"), JOB).open()


def test_relative_folder_is_refused() -> None:
    with pytest.raises(UsageError, match="relative"):
        OutputFolder("out", JOB).open()


def test_second_coordinator_of_a_published_job_publishes_no_second_copy(tmp_path: Path) -> None:
    opened(tmp_path / "out").publish(written(tmp_path / "out", "part-0"))
    second = opened(tmp_path / "out", epoch=NEXT)
    assert second.published is not None and second.published.epoch == 0
    second.publish(written(tmp_path / "out", "part-9", epoch=NEXT))
    second.discard()
    assert names_in(tmp_path / "out") == ["part-0"]


def test_second_coordinator_goes_on_with_what_the_first_had_written(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    first = opened(folder)
    files = written(folder, "part-0")
    second = opened(folder, epoch=NEXT)
    with pytest.raises(PeerError, match="is not seen by this one"):
        first.publish(files)
    first.discard()
    second.publish([*files, *written(folder, "part-1", epoch=NEXT)])
    assert second.published is not None and second.published.epoch == NEXT
    second.discard()
    assert names_in(folder) == ["part-0", "part-1"]


def test_publish_decided_before_another_coordinator_took_the_folder_over_is_carried_out(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    opened(folder)
    files = written(folder, "part-0", "part-1")
    moves = tuple((file, file.split("/", 1)[1]) for file in files)

    def take_over(what: str) -> None:
        if what == "move part-1" and hidden_folder(folder, JOB).exists():
            hidden_folder(folder, JOB).rename(hidden_folder(folder, JOB, NEXT))

    publish(folder, Manifest(job_id=JOB, epoch=0, existing="error", moves=moves), step=take_over)
    assert visible(folder).keys() == {"part-0", "part-1"}
    second = OutputFolder(str(folder), JOB, NEXT)
    second.publish(["attempt-65536/part-7"])
    second.discard()
    assert names_in(folder) == ["part-0", "part-1"]


def test_coordinator_that_wakes_after_all_is_forgotten_publishes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    opened(folder)
    files = written(folder, "part-0")
    late = Manifest(job_id=JOB, epoch=0, existing="overwrite_or_ignore", moves=((files[0], "late"),))
    second = opened(folder, epoch=NEXT)
    second.publish(files)
    second.discard()
    with pytest.raises(PeerError, match="another coordinator of it has published it"):
        publish(folder, late)
    assert names_in(folder) == ["part-0"]


def test_of_two_jobs_that_found_the_folder_empty_one_publishes(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    first, second = opened(folder), opened(folder, OTHER)
    files = written(folder, "part-0", "part-1"), written(folder, "part-1", "part-2", job=OTHER)
    second.publish(files[1])
    with pytest.raises(UsageError, match="not empty, it holds part-1"):
        first.publish(files[0])
    first.discard()
    assert visible(folder) == {name: f"{name} of {OTHER}" for name in ("part-1", "part-2")}
    second.discard()
    assert names_in(folder) == ["part-1", "part-2"]


def test_existing_files_are_kept_or_removed_as_asked(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    opened(folder).publish(written(folder, "k=1/a", "k=1/b", "k=2/a", "top"))
    opened(folder, OTHER, "overwrite_or_ignore").publish(written(folder, "k=1/a", "k=3/a", job=OTHER))
    assert visible(folder) == {
        "k=1/a": f"k=1/a of {OTHER}",
        "k=1/b": f"k=1/b of {JOB}",
        "k=2/a": f"k=2/a of {JOB}",
        "k=3/a": f"k=3/a of {OTHER}",
        "top": f"top of {JOB}",
    }
    third = "ef" * 16
    opened(folder, third, "delete_matching").publish(written(folder, "k=1/c", job=third))
    assert visible(folder).keys() == {"k=1/c", "k=2/a", "k=3/a", "top"}
    fourth = "01" * 16
    opened(folder, fourth, "delete_matching").publish(written(folder, "only", job=fourth))
    assert visible(folder).keys() == {"only"}


PUBLISHER = """
import os, signal, sys
from pathlib import Path
from sabot.agent.coordination.owner_table import EPOCHS_OF_A_COORDINATOR
from sabot.agent.files.publish import Manifest, publish

folder, job, existing, steps, *files = sys.argv[1:]
left = int(steps)

def step(what):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1

moves = tuple((file, file.split("/", 1)[1]) for file in files)
publish(Path(folder), Manifest(job_id=job, epoch=0, existing=existing, moves=moves), step=step)
"""


def killed_publishers(tmp_path: Path, existing: Existing) -> Iterator[tuple[Path, int]]:
    """A folder after each step at which a publisher, a process, was killed; the last one was not."""
    for steps in range(20):
        folder = tmp_path / str(steps)
        if existing == "delete_matching":
            opened(folder, OTHER).publish(written(folder, "k=1/a", "k=1/old", job=OTHER))
        opened(folder, JOB, existing)
        files = written(folder, "k=1/a", "k=1/b", "k=2/a")
        arguments = [sys.executable, "-c", PUBLISHER, str(folder), JOB, existing, str(steps), *files]
        ended = subprocess.run(arguments, check=False, capture_output=True, text=True)
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        yield folder, steps
        if ended.returncode == 0:
            return
    raise AssertionError("a publish has more steps than that?")


@pytest.mark.parametrize("existing", ["error", "delete_matching"])
def test_publisher_killed_at_any_step_leaves_all_or_nothing(tmp_path: Path, existing: Existing) -> None:
    before = {f"k=1/{name}": f"k=1/{name} of {OTHER}" for name in ("a", "old")} if existing != "error" else {}
    after = {name: f"{name} of {JOB}" for name in ("k=1/a", "k=1/b", "k=2/a")}
    found = []
    for folder, _ in killed_publishers(tmp_path, existing):
        decided = (folder / MANIFEST).exists() or (folder / f".sabot-published-{JOB}").exists()
        found.append(decided)
        assert visible(folder) == (after if decided else before)  # the reader has gone on with it
        assert not (folder / MANIFEST).exists()
    assert found[0] is False and all(found[1:]) and len(found) > 5


def test_next_write_finishes_what_a_killed_publisher_began(tmp_path: Path) -> None:
    for folder, steps in killed_publishers(tmp_path, "error"):
        decided = (folder / MANIFEST).exists() or (folder / f".sabot-published-{JOB}").exists()
        if decided:
            with pytest.raises(UsageError, match="not empty, it holds k=1"):
                opened(folder, OTHER)
            assert visible(folder).keys() == {"k=1/a", "k=1/b", "k=2/a"}
        else:
            opened(folder, OTHER).publish(written(folder, "mine", job=OTHER))
            assert visible(folder).keys() == {"mine"}, steps


def test_another_coordinator_goes_on_where_a_killed_one_was(tmp_path: Path) -> None:
    for folder, _ in killed_publishers(tmp_path, "error"):
        second = opened(folder, epoch=NEXT)
        second.publish([f"attempt-0/{name}" for name in ("k=1/a", "k=1/b", "k=2/a")])
        assert visible(folder) == {name: f"{name} of {JOB}" for name in ("k=1/a", "k=1/b", "k=2/a")}
        second.discard()
        assert names_in(folder) == ["k=1", "k=2"]


def test_many_may_carry_out_one_publish_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    opened(folder, OTHER).publish(written(folder, *(f"old-{index}" for index in range(20)), job=OTHER))
    names = [f"part-{index}" for index in range(200)]
    target = opened(folder, JOB, "delete_matching")
    files = written(folder, *names)
    errors: list[BaseException] = []

    def go_on() -> None:
        try:
            complete(folder)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=go_on) for _ in range(4)]

    def join_in(what: str) -> None:
        if what == "decided":
            for thread in threads:
                thread.start()

    moves = tuple((file, file.split("/", 1)[1]) for file in files)
    publish(folder, Manifest(job_id=JOB, epoch=0, existing="delete_matching", moves=moves), step=join_in)
    for thread in threads:
        thread.join()
    assert errors == []
    assert visible(folder) == {name: f"{name} of {JOB}" for name in names}
    target.discard()


def test_what_jobs_have_left_behind_is_removed_after_a_week(tmp_path: Path) -> None:
    opened(tmp_path)
    opened(tmp_path, OTHER)
    assert len(names_in(tmp_path)) == 2
    os.utime(hidden_folder(tmp_path, JOB), (0, 0))
    opened(tmp_path, "ef" * 16)
    assert names_in(tmp_path) == [f".sabot-{OTHER}", f".sabot-{'ef' * 16}"]
