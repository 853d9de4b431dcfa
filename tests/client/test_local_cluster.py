"""A local cluster is real processes that know each other, may be killed, and are gone with the block or its owner."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from sabot import LocalCluster, connect
from sabot.errors import PeerError, PeerLost, UsageError

WAIT_S = 20.0

OWNER = """
import sys, threading
import sabot
with sabot.LocalCluster(agents=2, slots=1) as cluster:
    print(*(agent.pid for agent in cluster.agents), flush=True)
    threading.Event().wait()
"""


def has_ended(pid: int) -> bool:
    """Waits for the end of a process that need not be our child."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], WAIT_S)[0])
    finally:
        os.close(watch)


def cluster_folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("sabot-cluster-*"))


def test_agents_are_processes_that_know_each_other_and_end_with_the_block() -> None:
    with LocalCluster(agents=4, slots=2) as cluster:
        pids = [agent.pid for agent in cluster.agents]
        assert len(set(pids)) == 4
        addresses = {agent.address for agent in cluster.agents}
        for index in range(4):
            members = cluster.connect(index).agents()
            assert {member.control_address for member in members} == addresses
            assert {member.slots for member in members} == {2}
        assert [agent.alive for agent in cluster.agents] == [True] * 4
        assert cluster_folders()
    assert all(has_ended(pid) for pid in pids)
    assert cluster_folders() == []


def test_killed_agent_is_dead_at_once_and_the_block_ends_without_complaint() -> None:
    with LocalCluster(agents=2) as cluster:
        pid = cluster.agents[1].pid
        cluster.agents[1].kill()
        cluster.agents[1].kill()
        assert not cluster.agents[1].alive
        assert has_ended(pid)
        assert cluster.agents[0].alive


def test_sessions_of_the_cluster_are_closed_with_it() -> None:
    with LocalCluster(agents=1) as cluster:
        session = cluster.connect()
        result = session.from_table(pa.table({"x": [1]})).run()
    with pytest.raises(UsageError, match="session"):
        session.agents()
    with pytest.raises(UsageError, match="session was closed"):
        result.to_table()


def test_an_agent_that_was_killed_cannot_be_connected_to() -> None:
    with LocalCluster(agents=1) as cluster:
        address = cluster.agents[0].address
        cluster.agents[0].kill()
        with pytest.raises(PeerLost, match=address):
            connect(address)


def test_an_agent_that_dies_at_its_start_shows_what_it_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SABOT_SLOTS_MORSEL_BYTES", "plenty")
    with pytest.raises(PeerError, match=r"local-0 ended at its start with code 2(.|\n)*slots\.morsel_bytes") as caught:
        LocalCluster(agents=2).start()
    assert caught.value.facts["exit_code"] == 2
    assert cluster_folders() == []


def test_what_a_dying_agent_wrote_is_cut_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SABOT_SLOTS_MORSEL_BYTES", "x" * 100_000)
    with pytest.raises(PeerError) as caught:
        LocalCluster(agents=1).start()
    assert len(str(caught.value)) < 5_000


def test_an_agent_that_is_not_ready_in_time_is_a_lost_peer() -> None:
    with pytest.raises(PeerLost, match="startup_timeout_s"):
        LocalCluster(agents=1, startup_timeout_s=0.0).start()
    assert cluster_folders() == []


@pytest.mark.parametrize(("agents", "slots"), [(0, 1), (-1, 1), (1, -1)])
def test_no_agents_or_negative_slots_are_a_usage_error(agents: int, slots: int) -> None:
    with pytest.raises(UsageError, match="agents >= 1"):
        LocalCluster(agents=agents, slots=slots)


def test_a_cluster_that_does_not_run_says_how_to_start_it() -> None:
    with pytest.raises(UsageError, match="with block"):
        LocalCluster().connect()


def test_a_running_cluster_is_not_started_twice() -> None:
    with LocalCluster(agents=1) as cluster:
        with pytest.raises(UsageError, match="runs already"):
            cluster.start()
        assert len(cluster.agents) == 1


def test_agents_end_when_their_owner_is_killed() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner, owner.stdout:
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        owner.send_signal(signal.SIGKILL)
    assert len(pids) == 2
    assert all(has_ended(pid) for pid in pids)
    for folder in cluster_folders():  # nobody was left to remove it
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
