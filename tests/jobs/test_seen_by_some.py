"""A path that only some agents see is reported as exactly that, for reading and for writing.

The agents are processes with working folders of their own, and the path leads through `/proc/self/cwd`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot
from sabot.errors import UsageError

TABLE = pa.table({"n": range(100)})
START_S = 60.0


def started(stack: ExitStack, name: str, folder: Path, join: str | None) -> str:
    """The control address of an agent that works in `folder`."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "sabot.client.leash", "start", "--agent-id", name, "--slots", "1"]
    command += ["--state-dir", str(folder / "state"), "--port", "0", "--control-port", "0", "--http-port", "0"]
    command += ["--join", join] if join else []
    # The leash ends the agent when its standard input is closed.
    agent = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder)
    stack.callback(agent.wait, START_S)
    assert agent.stdin is not None
    stack.callback(agent.stdin.close)
    facts = folder / "state" / "agent.json"
    end_s = time.monotonic() + START_S
    while not facts.exists():
        assert agent.poll() is None and time.monotonic() < end_s, "the agent does not start"
        threading.Event().wait(0.01)
    return str(json.loads(facts.read_text())["control_address"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """The folder below which agents `first` and `second` work, and their addresses."""
    below = tmp_path_factory.mktemp("agents")
    with ExitStack() as stack:
        first = started(stack, "first", below / "first", None)
        yield below, first, started(stack, "second", below / "second", first)


def both(address: str) -> sabot.client.session.Session:
    session = sabot.connect(address, progress=False)
    end_s = time.monotonic() + START_S
    while len(session.agents()) < 2:
        assert time.monotonic() < end_s, "the agents do not find each other"
        threading.Event().wait(0.01)
    return session


def test_files_that_one_agent_sees_name_both_agents(folders: tuple[Path, str, str]) -> None:
    below, first, second = folders
    for index in range(8):
        path = below / "first" / "data" / f"{index}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(TABLE, path)
    words = r"is seen by agent first and not by agent second; use a folder that every agent finds"
    with both(first) as session:
        data = session.read_parquet("/proc/self/cwd/data")
        with pytest.raises(UsageError, match=r"data/\d.parquet " + words) as caught:
            data.to_table()
        assert (caught.value.facts["seen_by"], caught.value.facts["not_seen_by"]) == (["first"], ["second"])
    with both(second) as session:
        with pytest.raises(UsageError, match=r"/proc/self/cwd/data " + words):
            session.read_parquet("/proc/self/cwd/data")
        with pytest.raises(UsageError, match="no file matches /proc/self/cwd/nowhere"):
            session.read_parquet("/proc/self/cwd/nowhere")


def test_folder_to_write_to_that_one_agent_sees_is_refused_before_work_begins(folders: tuple[Path, str, str]) -> None:
    below, first, _ = folders
    with both(first) as session:
        data = session.from_table(TABLE).repartition("n", 4)
        with pytest.raises(UsageError, match=r"\.sabot-\w+ is seen by agent first and not by agent second"):
            data.write_dataset("/proc/self/cwd/out")
    assert not (below / "first" / "out").exists()
    assert [path.name for path in (below / "second").iterdir()] == ["state"]
