"""Agents for a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.processes import Agents


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Agents]:
    """Starts real agents; those that still run at the end are killed."""
    started = Agents(tmp_path)
    yield started
    started.close()
