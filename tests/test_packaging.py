"""What is shipped is complete: the sdist builds, the compose file keeps its promises, make explains itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_sdist_has_every_source_that_a_build_needs(tmp_path: Path) -> None:
    built = run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path))
    assert built.returncode == 0, built.stdout + built.stderr
    (sdist,) = tmp_path.glob("sabot-*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    kinds = ("**/*.py", "**/*.pyi", "**/*.cc", "**/*.h", "**/*.pyx", "**/*.pxi", "**/*.cmake", "**/CMakeLists.txt")
    needed = {str(path.relative_to(ROOT)) for kind in kinds for path in (ROOT / "sabot").glob(kind)}
    needed |= {"CMakeLists.txt", "pyproject.toml", "LICENSE", "README.md", "configs/agent.yaml"}
    assert needed - packed == set()
    assert [name for name in packed if name.endswith((".so", ".whl")) or name.startswith(("build/", ".ci/"))] == []


def test_requirements_are_printed_by_group() -> None:
    printed = run(sys.executable, "scripts/requirements.py", "build", "test").stdout.splitlines()
    facts = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert printed == facts["build-system"]["requires"] + facts["project"]["optional-dependencies"]["test"]


def test_toolchain_check_says_what_to_install() -> None:
    assert run(sys.executable, "scripts/check_toolchain.py").returncode == 0
    lacking = run(sys.executable, "scripts/check_toolchain.py", CXX="/nonexistent/c++")
    assert lacking.returncode == 1
    assert "apt-get install g++" in lacking.stderr


def test_make_explains_every_command_of_the_readme() -> None:
    shown = run("make", "help").stdout
    for target in ("install", "demo", "test", "check", "native-test", "proto", "wheels", "dist", "clean"):
        assert f"  make {target} " in shown


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert isinstance(services, dict)
    return {name: service for name, service in services.items() if name.startswith("agent-")}


def test_compose_starts_two_agents_and_two_more_with_the_profile_four(services: dict[str, Any]) -> None:
    assert [name for name, service in services.items() if "profiles" not in service] == ["agent-1", "agent-2"]
    assert [name for name, service in services.items() if service.get("profiles") == ["four"]] == ["agent-3", "agent-4"]


def test_containers_tell_their_peers_their_service_name_and_admit_to_being_open(services: dict[str, Any]) -> None:
    for name, service in services.items():
        command = service["command"]
        assert command[command.index("--agent-id") + 1] == name
        assert command[command.index("--advertise-host") + 1] == name
        assert "--insecure" in command
        assert service["init"] is True
        assert "ports" not in service


def test_image_runs_as_another_user_than_root_and_checks_its_health() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "USER sabot" in lines
    assert any(line.startswith("HEALTHCHECK") and "sabot-agent" in line and "ping" in line for line in lines)
    assert any("pip install --no-index --find-links" in line for line in lines)
