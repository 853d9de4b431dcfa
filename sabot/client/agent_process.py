"""One agent process of a LocalCluster: started, waited for until its ports are open, killed.

The process has a folder of its own, which holds its state and what it prints; who made the folder removes it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sabot.errors import PeerError, PeerLost

_POLL_S = 0.01
_STDERR_CHARS_MAX = 4000
_KILL_WAIT_S = 5.0


class LocalAgent:
    """An agent on this machine. `address` is its control port; addresses are empty until it is ready."""

    def __init__(
        self, agent_id: str, folder: Path, *, slots: int, memory_bytes_max: int | None, join: str | None
    ) -> None:
        self.agent_id = agent_id
        self.address = ""
        self.flight_address = ""
        self.http_address = ""
        self._state_dir = folder / "state"
        self._stderr = folder / "stderr"
        self._process = self._spawn(folder, slots, memory_bytes_max, join)
        self.pid: int = self._process.pid

    def _spawn(
        self, folder: Path, slots: int, memory_bytes_max: int | None, join: str | None
    ) -> subprocess.Popen[bytes]:
        flags: Sequence[str] = (
            *("--agent-id", self.agent_id, "--state-dir", str(self._state_dir), "--slots", str(slots)),
            *("--port", "0", "--control-port", "0", "--http-port", "0"),
            *(("--memory", str(memory_bytes_max)) if memory_bytes_max is not None else ()),
            *(("--join", join) if join else ()),
        )
        with (folder / "stdout").open("wb") as out, self._stderr.open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "sabot.client.leash", "start", *flags],
                stdin=subprocess.PIPE,  # the leash: its closing ends the agent
                stdout=out,
                stderr=err,
                start_new_session=True,  # Ctrl-C in a terminal is the client's alone
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self, deadline: float) -> None:
        """Blocks until all ports are open; `deadline` is a time of `time.monotonic`."""
        started = time.monotonic()
        while (facts := self._read_facts()) is None:
            if not self.alive:
                raise PeerError(
                    f"agent {self.agent_id} ended at its start with code {self._process.returncode}; "
                    f"it wrote:\n{self.stderr_tail()}",
                    agent=self.agent_id,
                    exit_code=self._process.returncode,
                )
            if time.monotonic() > deadline:
                raise PeerLost(
                    f"agent {self.agent_id} was not ready after {time.monotonic() - started:.1f} s; give a larger "
                    f"startup_timeout_s on a slow machine; it wrote:\n{self.stderr_tail()}",
                    agent=self.agent_id,
                )
            time.sleep(_POLL_S)
        self.pid = facts["pid"]
        self.address = facts["control_address"]
        self.flight_address = facts["flight_address"]
        self.http_address = facts["http_address"]

    def _read_facts(self) -> dict[str, Any] | None:
        with suppress(FileNotFoundError):
            facts: dict[str, Any] = json.loads((self._state_dir / "agent.json").read_text())
            return facts
        return None

    def stderr_tail(self) -> str:
        """The end of what the agent wrote to its standard error."""
        with suppress(FileNotFoundError):
            text = self._stderr.read_bytes()[-4 * _STDERR_CHARS_MAX :].decode("utf-8", "replace").strip()
            return text[-_STDERR_CHARS_MAX:] or "(nothing)"
        return "(nothing)"

    def kill(self) -> None:
        """SIGKILL, as `kill -9` would; returns when the process is gone. A dead agent is left alone."""
        self.kill_nowait()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_WAIT_S)

    def kill_nowait(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def __repr__(self) -> str:
        return f"<LocalAgent {self.agent_id} pid={self.pid} address={self.address} alive={self.alive}>"
