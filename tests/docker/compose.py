"""Docker's command line, as far as the container test needs it: an engine, a base image, a project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
BASE_IMAGE = os.environ.get("BASE_IMAGE", f"python:{sys.version_info.major}.{sys.version_info.minor}-slim")
COMMAND_S = 600


def docker(*arguments: str, timeout_s: float = COMMAND_S) -> str:
    """What `docker ARGUMENTS` prints; its standard error is in the message when it fails."""
    return _run(["docker", *arguments], timeout_s=timeout_s)


def why_not() -> str:
    """Why no container can be started here, or nothing."""
    try:
        docker("version", timeout_s=30)
        _compose_command()
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        return f"no Docker engine with compose answers: {error}"
    try:
        docker("image", "inspect", BASE_IMAGE)
    except RuntimeError:
        try:
            docker("pull", "--quiet", BASE_IMAGE)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            return f"the base image {BASE_IMAGE} is not here and cannot be pulled (BASE_IMAGE names another): {error}"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The services of docker-compose.yml under a project name and image tag of their own."""

    name: str
    profiles: tuple[str, ...] = ()

    def compose(self, *arguments: str, timeout_s: float = COMMAND_S) -> str:
        profiles = [part for profile in self.profiles for part in ("--profile", profile)]
        command = [*_compose_command(), "--project-name", self.name, *profiles, *arguments]
        return _run(command, timeout_s=timeout_s, BASE_IMAGE=BASE_IMAGE, SABOT_TAG=self.tag)

    @property
    def tag(self) -> str:
        return self.name

    def inside(self, service: str, *command: str) -> str:
        """Runs `command` in the container of `service`."""
        return self.compose("exec", "-T", service, *command)

    def copy(self, source: Path, service: str, target: str) -> None:
        container = self.compose("ps", "-q", service).strip()
        docker("cp", str(source), f"{container}:{target}")

    def agents(self) -> list[dict[str, Any]]:
        """The members of the cluster, as the first agent sees them."""
        found = json.loads(self.inside("agent-1", "sabot-agent", "agents", "--json"))
        return found if isinstance(found, list) else list(found["agents"])


def _compose_command() -> list[str]:
    try:
        docker("compose", "version", timeout_s=30)
        return ["docker", "compose"]
    except RuntimeError:
        _run(["docker-compose", "--version"], timeout_s=30)
        return ["docker-compose"]


def _run(command: list[str], *, timeout_s: float, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout
