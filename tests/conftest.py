"""What every test gets: one printed seed, temporary folders of its own, and a check that it left nothing behind.

The check looks at threads, file descriptors, processes (orphans too) and temporary files, after each test and after
each module, so that what a module's fixtures share is checked when they are gone.
"""

from __future__ import annotations

import io
import os
import random
import secrets
from collections.abc import Generator, Iterator

import hypothesis
import pyarrow.csv
import pytest

from tests.leftovers import Leftovers

hypothesis.settings.register_profile(
    "developer",
    deadline=None,
    print_blob=True,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("developer"), max_examples=150)

SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="seed of every random choice in the tests (default: a new one, printed)")
    parser.addoption("--examples", type=int, default=5, help="cases of each operation in tests/operations (default: 5)")


def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "developer")
    given = config.getoption("--seed")
    config.stash[SEED] = secrets.randbits(32) if given is None else given
    if config.getoption("--hypothesis-seed", None) is None:
        config.option.hypothesis_seed = config.stash[SEED]


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.stash[SEED]} (the same choices again: --seed={config.stash[SEED]})"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections.append(("seed", f"--seed={item.config.stash[SEED]}"))
    return report


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The run's seed; printed when a test fails."""
    return request.config.stash[SEED]


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """A source of random choices that depends on the seed and the test's name, not on the tests before it."""
    return random.Random(f"{seed}:{request.node.nodeid}")


@pytest.fixture(scope="session", autouse=True)
def temporary_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps temporary files and state of this run, and of the agents that it starts, out of the user's folders."""
    patch = pytest.MonkeyPatch()
    temporary = tmp_path_factory.mktemp("tmp")
    patch.setenv("TMPDIR", str(temporary))
    patch.setattr("tempfile.tempdir", str(temporary))
    patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    Leftovers.mark_children(patch)
    # Arrow opens a pipe of its own at the first CSV file, and keeps it.
    pyarrow.csv.read_csv(io.BytesIO(b"a\n1\n"))
    # The threads in which it reads stay, too, under the name of the thread that started them, which might be a slot's:
    # here the one that has started now does it all.
    pyarrow.set_io_thread_count(1)
    yield
    patch.undo()


@pytest.fixture(scope="module", autouse=True)
def nothing_left_by_module(temporary_folders: None) -> Iterator[None]:
    before = Leftovers.now()
    yield
    before.check()


@pytest.fixture(autouse=True)
def nothing_left_by_test(nothing_left_by_module: None) -> Iterator[None]:
    before = Leftovers.now()
    yield
    before.check()
