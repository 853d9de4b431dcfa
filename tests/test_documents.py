"""The documents tell the truth where a machine can check it: Python runs, keys and defaults are the agent's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def python_of(document: str) -> str:
    """All Python blocks of a document, one after the other."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(
    "document",
    ["README.md", "docs/tutorial/first-cluster.md", "docs/how-to/shuffle-your-own-rows.md", "docs/how-to/files.md"],
)
def test_python_of_the_document_runs_as_it_stands(document: str, tmp_path: Path) -> None:
    script = tmp_path / "document.py"
    script.write_text(python_of(document))
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Rome" in done.stdout


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted key -> value as written in the file."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return found


def test_configuration_reference_has_every_key_at_its_default() -> None:
    # The base loader leaves values as they are written: null, 10, 1 MiB.
    written = leaves(yaml.load((ROOT / "configs" / "agent.yaml").read_text(), Loader=yaml.BaseLoader))
    table = (ROOT / "docs" / "reference" / "configuration.md").read_text()
    documented = dict(re.findall(r"^\| `([a-z_.]+)` \| `([^`]*)` \|", table, re.MULTILINE))
    assert documented == written


def test_command_line_reference_has_every_command_and_every_flag_of_start() -> None:
    from sabot.cli.main import cli

    text = (ROOT / "docs" / "reference" / "command-line.md").read_text()
    commands = set(re.findall(r"^\| `sabot-agent ([a-z]+)", text, re.MULTILINE))
    assert commands == set(cli.commands)
    flags = set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE))
    known = {
        option for parameter in cli.commands["start"].params for option in parameter.opts if option.startswith("--")
    }
    assert flags == known - {"--help"}


def test_dataset_reference_names_every_public_method() -> None:
    from sabot.dataflow.dataset import Dataset

    text = (ROOT / "docs" / "reference" / "dataset.md").read_text()
    named = set(re.findall(r"`(?:session)?\.?([a-z_]+)[(`]", text))
    methods = {name for name in vars(Dataset) if not name.startswith("_")}
    assert methods - named == set()
