"""A job on three real agents, one of them behind a faulty wire: whatever the wire does, the answer is exact."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.shuffle.faulty_proxy import FaultyProxy

from .held_job import ANSWERED_S, VICTIM, Held, Moment, Trio, until
from .held_work import GROUPING

NEAR, FAR = "127.0.0.3", "127.0.0.2"  # where others find the victim, and where it is
HELD_BACK_S = 0.3


class WiredTrio(Trio):
    """The victim's ports, as others know them, are two proxies."""

    flight: FaultyProxy
    control: FaultyProxy

    def wire_victim(self, stack: ExitStack) -> None:
        self.flight, self.control = (stack.enter_context(FaultyProxy(f"{FAR}:0", NEAR)) for _ in range(2))
        ports = ("--port", str(self.flight.port), "--control-port", str(self.control.port), "--http-port", "0")
        self.start_victim((*ports, "--host", FAR, "--advertise-host", NEAR))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WiredTrio]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SABOT_JOBS_PEER_DEADLINE_S", "1")
        environment.setenv("SABOT_JOBS_SPLIT_BYTES", str(16 * 1024))  # a task for each row group
        agents = WiredTrio(tmp_path_factory.mktemp("trio"))
        yield agents
        agents.close()


@pytest.fixture
def trio(cluster: WiredTrio) -> Iterator[WiredTrio]:
    with ExitStack() as stack:
        cluster.wire_victim(stack)
        yield cluster
        cluster.victim.close()


def cut(trio: WiredTrio, rng: random.Random) -> None:
    """Streams begin again where the receiver is, so that it sees repeats."""
    trio.flight.cut()
    trio.flight.cut_after(*(rng.randrange(20_000) for _ in range(2)))


def flip_a_bit(trio: WiredTrio, rng: random.Random) -> None:
    """One, since rows that are found wrong again after a replay are an error."""
    trio.flight.flip(trio.flight.bytes_to_target + rng.randrange(60_000))


def delay(trio: WiredTrio, rng: random.Random) -> None:
    trio.flight.stall()
    until(Elapsed(HELD_BACK_S))
    trio.flight.flow()


def slow(trio: WiredTrio, rng: random.Random) -> None:
    trio.flight.slow_down(2_000_000)


def half_open(trio: WiredTrio, rng: random.Random) -> None:
    trio.flight.swallow_answers()


def dead(trio: WiredTrio, rng: random.Random) -> None:
    trio.flight.stall()
    trio.control.stall()


class Elapsed:
    """True once so many seconds have gone by."""

    def __init__(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds

    def __call__(self) -> bool:
        return time.monotonic() >= self._end_s


@pytest.mark.parametrize("fault", [cut, flip_a_bit, delay, slow, half_open, dead], ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("moment", ["send", "transfer", "barrier", "take", "end"])
def test_whatever_the_wire_does_at_any_moment_the_answer_is_exact(
    trio: WiredTrio, tmp_path: Path, moment: Moment, fault: Callable[[WiredTrio, random.Random], None], seed: int
) -> None:
    job = Held(trio, tmp_path, moment, lambda rows: GROUPING.of(trio.session, rows))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(job.data.run)
        until(job.reached)
        fault(trio, random.Random(seed))
        job.go_on()
        with running.result(ANSWERED_S) as result:
            GROUPING.check(result)
            assert set(result.stats.agents_lost) <= {VICTIM}
    trio.flight.flow()
    trio.control.flow()
    trio.flight.swallow_answers(False)
    until(trio.all_free)
