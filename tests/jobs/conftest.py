"""Clusters inside this process, and files to read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .in_process import InProcessCluster


@pytest.fixture
def cluster() -> Iterator[InProcessCluster]:
    """Two agents with one slot each."""
    with InProcessCluster(2, slots=1) as running:
        yield running
        running.check_nothing_held()
