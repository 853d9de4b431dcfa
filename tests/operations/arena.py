"""Where operations are compared: sessions of real agents that take everything in pieces as small as they can be.

An `Operation` is one thing that users do with a `Dataset`, with cases to do it to and a check against pyarrow's answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import strategies as st

import sabot
from sabot.client.session import Session
from sabot.dataflow import sorting
from sabot.dataflow.dataset import Dataset
from tests.agent.processes import Agents
from tests.client.connections import open_connections
from tests.dataflow.comparing import assert_same_rows
from tests.jobs.held_job import until

TINY = {
    "SABOT_SLOTS_MORSEL_BYTES": "1024",
    "SABOT_SHUFFLE_SCATTER_BYTES_MAX": "65536",
    "SABOT_SHUFFLE_CHUNK_BYTES_MAX": "65536",
    "SABOT_JOBS_SPLIT_BYTES": "1024",
}


@dataclass(slots=True, kw_only=True)
class Arena:
    """`session` broadcasts nothing, `broadcasting` every side of a join that can be."""

    agents: int
    session: Session
    broadcasting: Session
    folder: Path
    _folders: Iterator[int] = field(default_factory=itertools.count)

    def rows(self, dataset: Dataset) -> pa.Table:
        """The dataset's rows, of a job whose audit found every row once."""
        with dataset.run() as result:
            assert result.receipt.exact, str(result.receipt)
            return result.to_table()

    def same(self, dataset: Dataset, expected: pa.Table, *, ordered: bool = False) -> None:
        """Fails unless the dataset has these rows."""
        assert_same_rows(self.rows(dataset), expected, ordered=ordered)

    def new_folder(self) -> Path:
        """One that is not there yet."""
        return self.folder / str(next(self._folders))


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`check(arena, case)` fails where the answer to a case is not pyarrow's. It uses these `methods` of Dataset."""

    name: str
    methods: frozenset[str]
    cases: st.SearchStrategy[Any]
    check: Callable[[Arena, Any], None]


@contextmanager
def open_arena(agents: int, folder: Path) -> Iterator[Arena]:
    """So many agents of one slot, and sessions that sort by ranges whatever they sort."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in TINY.items():
            patch.setenv(name, value)
        patch.setattr(sorting, "SORTED_BY_ONE_BYTES_MAX", -1)
        processes = Agents(folder / "agents")
        stack.callback(processes.close)
        module = "tests.jobs.fine_agent"
        first = processes.start("agent-0", module=module)
        with ThreadPoolExecutor(4) as pool:
            names = [f"agent-{index}" for index in range(1, agents)]
            others = pool.map(lambda name: processes.start(name, "--join", first.control, module=module), names)
            until(lambda all_agents=[first, *others]: all(len(one.members()) == agents for one in all_agents))
        sessions = [
            stack.enter_context(sabot.connect(first.control, progress=False, broadcast_bytes_max=bytes_max))
            for bytes_max in (0, 1 << 20)
        ]
        for session in sessions:
            open_connections(session)
        yield Arena(agents=agents, session=sessions[0], broadcasting=sessions[1], folder=folder)
