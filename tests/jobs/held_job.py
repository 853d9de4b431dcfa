"""Three real agents and jobs that are held at a chosen moment of their shuffle, for whoever wants to strike there.

The functions of the job hold it, by files; nothing waits for time to pass but for what must come true.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

import sabot
from sabot.dataflow.dataset import Dataset
from sabot.wire import agent_pb2
from tests.agent.processes import FREE_PORTS, AgentProcess, Agents
from tests.client.connections import open_connections

Moment = Literal["send", "transfer", "barrier", "take", "end"]
Blow = Literal["killed", "frozen", "restarted", "cut"]

ANSWERED_S = 20.0
ROWS = 60_000
FILES = 12
NOBODY_HELPS = {"SABOT_JOBS_SLOW_TASK_FACTOR": "1000000"}  # out a task that is held
CALLS_AHEAD = 10  # of at least 60
VICTIM = "victim"


def until(fact: Callable[[], bool], *, deadline_s: float = 60.0) -> None:
    end_s = time.monotonic() + deadline_s
    while not fact():
        assert time.monotonic() < end_s, "it does not come true"
        threading.Event().wait(0.01)


class Trio:
    """A coordinator and a third agent for all tests, and for each test a victim."""

    victim: AgentProcess

    def __init__(self, folder: Path) -> None:
        self._agents = Agents(folder)
        self.coordinator = self._start("coordinator")
        self.third = self._start("third", "--join", self.coordinator.control)
        self.session = sabot.connect(self.coordinator.control, progress=False)
        until(lambda: len(self.third.members()) == len(self.coordinator.members()) == 2)
        open_connections(self.session)

    def start_victim(self, ports: Sequence[str] = FREE_PORTS) -> None:
        self.victim = self._start(VICTIM, "--join", self.coordinator.control, ports=ports)
        mine = self.victim.facts["incarnation"]
        until(lambda: all(mine in {one.incarnation for one in agent.members()} for agent in self._standing()))
        until(lambda: all(len(agent.members()) == 3 for agent in self._standing()))

    def strike(self, blow: Blow) -> None:
        match blow:
            case "killed":
                self.victim.signal(signal.SIGKILL)
            case "frozen":
                self.victim.signal(signal.SIGSTOP)
            case "cut":
                self.victim.signal(signal.SIGUSR1)
            case "restarted":
                self.victim.close()
                self.start_victim(self.victim.ports())

    def thaw(self) -> None:
        self.victim.signal(signal.SIGCONT)

    def all_free(self) -> bool:
        """Whether nothing is left of the last job on any agent that runs."""
        running = [agent for agent in self._standing() if agent.process.poll() is None]
        return all(self._is_free(agent) for agent in running)

    def status(self, agent: AgentProcess) -> agent_pb2.StatusReply:
        reply: agent_pb2.StatusReply = agent.call("GetStatus", agent_pb2.StatusRequest())
        return reply

    def close(self) -> None:
        self.session.close()
        self._agents.close()

    def _start(self, agent_id: str, *flags: str, **more: Any) -> AgentProcess:
        more["environment"] = NOBODY_HELPS
        return self._agents.start(agent_id, *flags, module="tests.jobs.cuttable_agent", **more)

    def _standing(self) -> tuple[AgentProcess, ...]:
        return self.coordinator, self.third, self.victim

    def _is_free(self, agent: AgentProcess) -> bool:
        status = self.status(agent)
        return (status.jobs_running, status.tasks_running, status.stored_bytes) == (0, 0, 0)


def holding(folder: Path, pids: set[int], *, from_call: int) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Holds the agents `pids` at their call number `from_call`, until `folder` has the file "go on".

    Others wait after a few calls until these are held, lest they do all of the work before an agent that has just
    started has had its part.
    """
    go_on, calls = folder / "go on", [0]

    def all_are_held() -> bool:
        return len(list(folder.glob("held by *"))) >= len(pids)

    def hold(batch: pa.RecordBatch) -> pa.RecordBatch:
        calls[0] += 1
        if os.getpid() in pids:
            if calls[0] >= from_call:
                (folder / f"held by {os.getpid()}").touch()
                while not go_on.exists() and folder.exists():
                    threading.Event().wait(0.005)
        elif calls[0] > CALLS_AHEAD:
            while not all_are_held() and not go_on.exists() and folder.exists():
                threading.Event().wait(0.005)
        return batch

    return hold


def lingering(folder: Path) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """A function that takes its time until `folder` has the file "go on": 0.1 s, and 0.5 s where it waits for long.

    What others wait for must come while tasks begin and end, and before the last; how long it takes depends on the
    machine.
    """
    calls = [0]

    def linger(batch: pa.RecordBatch) -> pa.RecordBatch:
        calls[0] += batch.num_rows > 0
        if batch.num_rows and not (folder / "go on").exists():
            threading.Event().wait(0.1 if calls[0] <= 50 else 0.5)
        return batch

    return linger


class Held:
    """A job that is held at `moment`, before its work or behind it; `reached` says when it is there."""

    def __init__(
        self, trio: Trio, folder: Path, moment: Moment, work: Callable[[Dataset], Dataset], source: str | None = None
    ) -> None:
        self._trio = trio
        self._folder = folder / "gate"
        self._folder.mkdir()
        victim, others = {trio.victim.process.pid}, {trio.coordinator.process.pid, trio.third.process.pid}
        pids, call = {
            "send": (victim, 1),
            "transfer": (victim, 4),
            "barrier": ({trio.coordinator.process.pid}, 4),
            "take": (victim, 1),
            "end": (others, 2),
        }[moment]
        self._held = pids
        self._victim_is_done = moment in {"barrier", "end"}
        function = holding(self._folder, pids, from_call=call)
        rows = trio.session.read_parquet(files(folder) if source is None else source)
        data = work(held_by(rows, function) if moment in {"send", "transfer", "barrier"} else rows)
        self.data = held_by(data, function) if moment in {"take", "end"} else data

    def reached(self) -> bool:
        if len(list(self._folder.glob("held by *"))) < len(self._held):
            return False
        return not self._victim_is_done or self._trio.status(self._trio.victim).tasks_running == 0

    def go_on(self) -> None:
        (self._folder / "go on").touch()


def held_by(data: Dataset, function: Callable[[pa.RecordBatch], pa.RecordBatch]) -> Dataset:
    return data.map_batches(function, schema=data.schema, processes=False)


def held_table() -> pa.Table:
    return pa.table({"k": [i * 7919 % 997 for i in range(ROWS)], "v": list(range(ROWS))})


def files(folder: Path) -> str:
    (folder / "t").mkdir()
    rows = ROWS // FILES
    for index in range(FILES):
        pq.write_table(
            held_table().slice(index * rows, rows), folder / "t" / f"{index:02}.parquet", row_group_size=1000
        )
    return str(folder / "t")
