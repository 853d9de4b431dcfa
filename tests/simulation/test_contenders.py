"""Two jobs that publish into one folder at the same time: where one is in the way of the other, that one fails and says
so, and the folder has of each job all or nothing.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sabot.agent.files import publish
from sabot.agent.files.publish import MANIFEST, Manifest, hidden_folder

from .cluster import Cluster
from .faults import Fault, Kind, Odds
from .runs import MUCH, at_coordinator, caught

SEEDS = 40
SEEDS_A_MOMENT = 10

MOMENTS = {
    "dies before it decides": at_coordinator(Kind.CRASH, "publishing", 5),
    "dies when one has decided": at_coordinator(Kind.CRASH, "publishing", 7),
    "dies silently among the moves": at_coordinator(Kind.CRASH, "publishing", 9, silent=True),
    "thaws when it has been replaced": at_coordinator(Kind.FREEZE, "publishing", 8, lasts_s=20.0),
    "loses its client": at_coordinator(Kind.BREAK, "publishing", 7),
}


def ends_of(cluster: Cluster) -> tuple[str, ...]:
    """How the two jobs have ended, whichever was first."""
    cluster.run()
    return tuple(sorted(type(client.error).__name__ for client in cluster.clients[:2]))


def test_of_two_jobs_that_publish_into_one_folder_all_or_nothing_is_there() -> None:
    clusters = [
        Cluster(seed, faults=[], odds=Odds(), bytes_max=MUCH, writes=True, contend=True) for seed in range(SEEDS)
    ]
    ends = Counter(ends_of(cluster) for cluster in clusters)
    assert set(ends) == {("NoneType", "NoneType"), ("NoneType", "UsageError")}, ends
    assert min(ends.values()) > SEEDS // 8, ends


@pytest.mark.parametrize("fault", MOMENTS.values(), ids=MOMENTS.keys())
def test_coordinator_struck_while_another_job_publishes_there_mixes_nothing(fault: Fault) -> None:
    odds = Odds(slow_message=0.1, doubled_call=0.2)
    clusters = [
        Cluster(seed, faults=[fault], odds=odds, bytes_max=MUCH, writes=True, contend=True)
        for seed in range(SEEDS_A_MOMENT)
    ]
    ends = [ends_of(cluster) for cluster in clusters]
    assert sum("NoneType" in end for end in ends) == len(ends), Counter(ends)
    assert any(client.takeovers for cluster in clusters for client in cluster.clients)


def test_job_that_does_not_look_again_whether_the_folder_is_empty_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_verdict", lambda folder, hidden, manifest: publish._BEGUN)
    assert "the dataset of" in str(caught(faults=[], odds=Odds(), bytes_max=MUCH, writes=True, contend=True))


def test_manifest_that_takes_the_place_of_another_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def decide(folder: Path, manifest: Manifest) -> bool:
        draft = hidden_folder(folder, manifest.job_id, manifest.epoch) / "manifest"
        draft.write_text(publish.json.dumps(publish.asdict(manifest)))
        draft.replace(folder / MANIFEST)
        return True

    monkeypatch.setattr(publish, "_decide", decide)
    caught(faults=[], odds=Odds(), bytes_max=MUCH, writes=True, contend=True)
