"""The agent's folder of state: agent.json says where it listens, a lock says that it is in use.

The lock is the kernel's (flock), so that it ends with the process, however that ends, and a pid that was given to
another process means nothing. agent.json is written in one piece when all ports are open and removed at exit.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from pathlib import Path
from types import TracebackType

from sabot.errors import UsageError
from sabot.wire.member import Member

AGENT_FILE = "agent.json"
LOCK_FILE = "lock"


class StateDir:
    """The folder, locked for this process from `__enter__` to `__exit__`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._lock: int | None = None

    def __enter__(self) -> StateDir:
        """Makes the folder and locks it; UsageError when that cannot be or another agent uses it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(
                f"state dir {self.folder} cannot be used: {error.strerror}; give another one (flag --state-dir, key "
                "agent.state_dir)"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise UsageError(
                f"state dir {self.folder} is in use by {_owner(self.folder)}; stop that one first, or give this one "
                "another name (flag --agent-id, key agent.id) or state dir (flag --state-dir, key agent.state_dir)"
            ) from None
        self._lock = lock
        self.remove_agent_file()
        return self

    def write(self, me: Member) -> None:
        """Writes agent.json, whole or not at all."""
        content = {
            "agent_id": me.agent_id,
            "incarnation": me.incarnation,
            "pid": os.getpid(),
            "control_address": me.control_address,
            "flight_address": me.flight_address,
            "http_address": me.http_address,
        }
        with tempfile.NamedTemporaryFile("w", dir=self.folder, prefix=".agent-", delete=False) as file:
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(self.folder / AGENT_FILE)

    def remove_agent_file(self) -> None:
        """Takes agent.json away: nobody should look for this agent any more."""
        (self.folder / AGENT_FILE).unlink(missing_ok=True)

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Removes agent.json and unlocks; the folder and its lock file stay, so that two starters always meet there."""
        if self._lock is not None:
            self.remove_agent_file()
            os.close(self._lock)
            self._lock = None


def read_agent_file(folder: Path) -> dict[str, object] | None:
    """What agent.json says, or None where there is none; it may be left over from an agent that was killed."""
    try:
        content = json.loads((folder / AGENT_FILE).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _owner(folder: Path) -> str:
    content = read_agent_file(folder)
    if content is None:
        return "an agent that is starting"
    return f"agent {content.get('agent_id')} (pid {content.get('pid')}, control {content.get('control_address')})"
