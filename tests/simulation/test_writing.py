"""Jobs that write files, and coordinators that are struck while they publish: a dataset appears whole or not at all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sabot.agent.files import output_folder
from sabot.agent.files.publish import Manifest, Step, hidden_folder
from sabot.agent.tasks.file_output import FileWriter, _Partitions

from .cluster import Cluster
from .faults import Fault, Kind, Odds
from .runs import MUCH, at_coordinator, caught, moment, run

SEEDS_A_MOMENT = 12

MOMENTS = {
    "dies before it has made its folder": at_coordinator(Kind.CRASH, "publishing", 1),
    "dies before it decides": at_coordinator(Kind.CRASH, "publishing", 2),
    "dies when it has decided": at_coordinator(Kind.CRASH, "publishing", 3),
    "dies silently among its moves": at_coordinator(Kind.CRASH, "publishing", 4, silent=True),
    "dies late": at_coordinator(Kind.CRASH, "publishing", 6),
    "thaws before its decision when it has been replaced": at_coordinator(Kind.FREEZE, "publishing", 2, lasts_s=20.0),
    "thaws among its moves when it has been replaced": at_coordinator(Kind.FREEZE, "publishing", 4, lasts_s=20.0),
    "loses its client before it decides": at_coordinator(Kind.BREAK, "publishing", 2),
    "loses its client among its moves": at_coordinator(Kind.BREAK, "publishing", 4),
    "comes back at its address": at_coordinator(Kind.CRASH, "publishing", 3, lasts_s=2.0),
}


@pytest.mark.parametrize("fault", MOMENTS.values(), ids=MOMENTS.keys())
def test_coordinator_struck_while_it_publishes_leaves_the_dataset_once_and_whole(fault: Fault) -> None:
    for odds in (Odds(), Odds(slow_message=0.1, doubled_call=0.2)):
        clusters = [
            Cluster(seed, faults=[fault], odds=odds, bytes_max=MUCH, writes=True) for seed in range(SEEDS_A_MOMENT)
        ]
        ends = Counter(cluster.run() for cluster in clusters)
        assert ends["answer"] > SEEDS_A_MOMENT // 2, ends
        assert sum(bool(cluster.clients[0].takeovers) for cluster in clusters) > SEEDS_A_MOMENT // 3


def test_attempt_that_thaws_when_its_job_has_published_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It made the hidden folder anew, which nobody removed for a week."""
    thaws = [moment(Kind.FREEZE, "partition read", count, lasts_s=20.0, later_s=0.001) for count in (2, 4)]
    for fault in thaws:
        run(range(40), faults=[fault], odds=Odds(), bytes_max=MUCH, writes=True)

    def make(_: FileWriter, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(FileWriter, "_make", make)
    assert "has left" in str(caught(faults=[thaws[0]], odds=Odds(), bytes_max=MUCH, writes=True))


def test_publish_without_a_manifest_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client cancels too late, so that nobody goes on where the coordinator is lost."""

    def publish(folder: Path, manifest: Manifest, *, step: Step) -> None:
        hidden = hidden_folder(folder, manifest.job_id, manifest.epoch)
        for source, target in manifest.moves:
            step(f"move {target}")
            (hidden / source).rename(folder / target)

    monkeypatch.setattr(output_folder, "publish", publish)
    faults = [at_coordinator(Kind.CANCEL, "publishing", 3), at_coordinator(Kind.CRASH, "publishing", 4)]
    assert "the dataset of" in str(caught(faults=faults, odds=Odds(), bytes_max=MUCH, writes=True))


def test_coordinator_that_leaves_the_files_to_the_one_before_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_folder, "earlier_epochs", lambda epoch: ())
    caught(faults=[MOMENTS["dies before it decides"]], odds=Odds(), bytes_max=MUCH, writes=True)


def test_row_in_the_folder_of_another_value_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = _Partitions._folder
    monkeypatch.setattr(_Partitions, "_folder", lambda self, values: right(self, values).replace("2", "1"))
    assert "the dataset of" in str(caught(faults=[], odds=Odds(), bytes_max=MUCH, writes=True))
