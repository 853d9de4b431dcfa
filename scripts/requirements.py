"""Prints requirements of pyproject.toml, one a line: of the groups build, run, or an optional one, as named."""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, groups: list[str]) -> list[str]:
    """The requirement strings of `groups`, in their order."""
    facts = tomllib.loads(pyproject.read_text())
    known = {"build": facts["build-system"]["requires"], "run": facts["project"]["dependencies"]}
    known |= facts["project"]["optional-dependencies"]
    return [line for group in groups for line in known[group]]


if __name__ == "__main__":
    print(*requirements(Path(__file__).parent.parent / "pyproject.toml", sys.argv[1:]), sep="\n")
