"""Real agents as processes of their own: started on free ports, waited for by what they print, ended for sure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sabot.cli.agent_call import call_agent
from sabot.wire import agent_pb2
from sabot.wire.convert import from_agent
from sabot.wire.member import Member

DEADLINE_S = 60.0  # ends a test that would wait for ever; how long things take is not tested by it
FREE_PORTS = ("--port", "0", "--control-port", "0", "--http-port", "0")


def without_pandas(folder: Path) -> dict[str, str]:
    """The environment of a process that finds no pandas, which pyarrow imports as soon as a Python value becomes an
    Arrow one: where it is installed that is another 33 MB, none of them Sabot's.
    """
    (folder / "pandas.py").write_text("raise ImportError('not for this process')")
    return {"PYTHONPATH": str(folder)}


class AgentProcess:
    """One agent; its ready line has been read when this exists, unless `ready` is false."""

    def __init__(
        self,
        folder: Path,
        *flags: str,
        ready: bool = True,
        ports: Sequence[str] = FREE_PORTS,
        module: str = "sabot.cli.main",
        environment: dict[str, str] | None = None,
        state_dir: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.state_dir = state_dir or folder / "state"
        self._stderr = folder / "stderr"
        arguments = ("start", *ports, "--state-dir", str(self.state_dir), "--slots", "1", *flags)
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", module, *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **(environment or {})},
            )
        self.lines: list[str] = []
        if ready:
            self.read_until("state ")
            self.facts: dict[str, Any] = json.loads((self.state_dir / "agent.json").read_text())
            self.control: str = self.facts["control_address"]

    def read_until(self, start: str) -> str:
        """The next line of standard output that starts so."""
        assert self.process.stdout is not None
        with self._deadline():
            for line in self.process.stdout:
                self.lines.append(line.rstrip("\n"))
                if line.startswith(start):
                    return self.lines[-1]
        raise AssertionError(f"no line {start!r} from the agent: {self.lines}\n{self.stderr()}")

    def stderr(self) -> str:
        return self._stderr.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code."""
        with self._deadline():
            return self.process.wait()

    def call(self, method: str, request: Any) -> Any:
        return call_agent(self.control, method, request, timeout_s=DEADLINE_S)

    def members(self) -> list[Member]:
        return [from_agent(agent) for agent in self.call("ListAgents", agent_pb2.ListAgentsRequest()).agents]

    def names(self) -> list[str]:
        return [member.agent_id for member in self.members()]

    def ports(self) -> tuple[str, ...]:
        """The flags that make another agent take the same ports."""
        flags = {"--port": "flight_address", "--control-port": "control_address", "--http-port": "http_address"}
        return tuple(word for flag, key in flags.items() for word in (flag, self.facts[key].rpartition(":")[2]))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @contextmanager
    def _deadline(self) -> Iterator[None]:
        timer = threading.Timer(DEADLINE_S, self.process.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


class Agents:
    """Starts agents in folders of one test and ends what is left of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[AgentProcess] = []

    def start(self, agent_id: str, *flags: str, **more: Any) -> AgentProcess:
        folder = self._folder / f"{len(self._started)}-{agent_id}"
        agent = AgentProcess(folder, "--agent-id", agent_id, *flags, **more)
        self._started.append(agent)
        return agent

    def close(self) -> None:
        for agent in self._started:
            agent.close()
