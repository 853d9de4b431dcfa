"""A cluster of real agent processes on this machine, for as long as a block lasts.

The agents end with the block or with this process, however it ends. Dead agents are not restarted.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from sabot.client.agent_process import LocalAgent
from sabot.client.connect import Modules, connect
from sabot.client.control import ControlClient
from sabot.client.session import Session
from sabot.config import load_config
from sabot.config.machine import default_memory_bytes_max
from sabot.errors import ConfigError, PeerLost, UsageError

_POLL_S = 0.02
_CALL_TIMEOUT_S = 5.0


class LocalCluster:
    """`agents` agent processes with `slots` slots each (0: one per core), all members of one cluster.

    Each agent may hold `memory_bytes_max`, by default its part of what one agent alone would take of this machine.

    Use it in a with block. Leaving it stops what is left at once, without a drain, and closes the sessions it gave.
    """

    def __init__(
        self, agents: int = 2, slots: int = 1, *, memory_bytes_max: int | None = None, startup_timeout_s: float = 30.0
    ) -> None:
        if agents < 1 or slots < 0:
            raise UsageError(f"LocalCluster(agents={agents}, slots={slots}): give agents >= 1 and slots >= 0")
        if memory_bytes_max is not None and not (type(memory_bytes_max) is int and memory_bytes_max > 0):
            raise UsageError(f"LocalCluster(memory_bytes_max={memory_bytes_max!r}): give a number of bytes, or None")
        self.agents: list[LocalAgent] = []
        self._num_agents = agents
        self._slots = slots
        self._memory_bytes_max = _memory_of_each(agents) if memory_bytes_max is None else memory_bytes_max
        self._startup_timeout_s = startup_timeout_s
        self._folder: Path | None = None
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when every agent knows all the others; PeerError with its standard error where one dies at start."""
        if self._folder is not None:
            raise UsageError("this cluster runs already; make another LocalCluster for a second one")
        self._folder = Path(tempfile.mkdtemp(prefix="sabot-cluster-"))
        deadline = time.monotonic() + self._startup_timeout_s
        try:
            first = self._add_agent(0, join=None)
            first.wait_until_ready(deadline)
            others = [self._add_agent(i, join=first.address) for i in range(1, self._num_agents)]
            for agent in others:
                agent.wait_until_ready(deadline)
            for agent in self.agents:
                self._wait_until_joined(agent, deadline)
        except BaseException:
            self.stop()
            raise

    def _add_agent(self, index: int, *, join: str | None) -> LocalAgent:
        assert self._folder is not None
        agent_id = f"local-{index}"
        folder = self._folder / agent_id
        folder.mkdir()
        agent = LocalAgent(agent_id, folder, slots=self._slots, memory_bytes_max=self._memory_bytes_max, join=join)
        self.agents.append(agent)
        return agent

    def _wait_until_joined(self, agent: LocalAgent, deadline: float) -> None:
        control = ControlClient(agent.address, timeout_s=_CALL_TIMEOUT_S)
        try:
            while len(members := control.list_agents()) < self._num_agents:
                if time.monotonic() > deadline:
                    raise PeerLost(
                        f"agent {agent.agent_id} knows {len(members)} of {self._num_agents} agents after "
                        f"{self._startup_timeout_s:g} s; it wrote:\n{agent.stderr_tail()}",
                        agent=agent.agent_id,
                    )
                time.sleep(_POLL_S)
        finally:
            control.close()

    def connect(
        self,
        agent: int = 0,
        *,
        timeout_s: float = 10.0,
        progress: bool | None = None,
        py_modules: Modules = (),
        weight: float = 1.0,
        job_timeout_s: float | None = None,
        broadcast_bytes_max: int | None = None,
    ) -> Session:
        """A session through `agents[agent]`; it is closed with the cluster at the latest."""
        if not self.agents:
            raise UsageError("the cluster does not run; use it in a with block: with sabot.LocalCluster() as cluster")
        session = connect(
            self.agents[agent].address,
            timeout_s=timeout_s,
            progress=progress,
            py_modules=py_modules,
            weight=weight,
            job_timeout_s=job_timeout_s,
            broadcast_bytes_max=broadcast_bytes_max,
        )
        self._sessions.add(session)
        return session

    def stop(self) -> None:
        """Kills what is left and removes its folders; never raises because an agent is dead already."""
        for agent in self.agents:
            agent.kill_nowait()
        for agent in self.agents:
            agent.kill()
        for session in list(self._sessions):
            session.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self.agents = []
        self._folder = None


def _memory_of_each(agents: int) -> int | None:
    """None where the environment says it, or is at fault, as the agents will report."""
    try:
        configured = load_config().memory.bytes_max
    except ConfigError:
        return None
    return default_memory_bytes_max(agents) if configured == "auto" else None
