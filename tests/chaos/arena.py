"""Four real agents and TPC-H jobs over them, in each of which one agent is struck at a moment of the job's own time."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import sabot
from examples.tpch.answers import Row
from examples.tpch.tables import Tables, make_tables, read_tables
from sabot.client.session import Session
from sabot.errors import PeerLost
from sabot.wire import agent_pb2
from tests.agent.processes import FREE_PORTS, AgentProcess, Agents

from .jobs import ChaosJob, Outcome, chaos_jobs

Blow = Literal["killed", "frozen", "restarted", "cut"]
BLOWS: tuple[Blow, ...] = get_args(Blow)

_EXACT = Outcome()

AGENTS = 4
SCALE = 0.02
ANSWERED_S = 60.0
SETTLED_S = 60.0
ENVIRONMENT = {
    "SABOT_JOBS_PEER_DEADLINE_S": "1",
    "SABOT_JOBS_TAKEOVER_S": "4",
    "SABOT_JOBS_SPLIT_BYTES": str(256 * 1024),
    "SABOT_SHUFFLE_CHUNK_BYTES_MAX": str(64 * 1024),
    "SABOT_JOBS_BROADCAST_BYTES_MAX": str(64 * 1024),  # some joins copy a side, and others shuffle both
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One blow to one job. `usual_s` is what the job takes without; `failed` is the error that it ended with."""

    job: str
    blow: Blow
    coordinator: bool
    after_s: float
    took_s: float
    usual_s: float
    outcome: Outcome = _EXACT
    hung: bool = False
    failed: str = ""

    @property
    def exact(self) -> bool:
        return not self.hung and not self.failed and self.outcome == _EXACT

    def __str__(self) -> str:
        whom = "coordinator" if self.coordinator else "agent"
        verdict = "exact" if self.exact else f"{self.outcome}{', hung' if self.hung else ''} {self.failed}"
        return (
            f"{self.job:15} {whom:11} {self.blow:9} after {self.after_s:5.2f} s of {self.usual_s:5.2f}, "
            f"answered in {self.took_s:5.2f} s: {verdict}"
        )


class Arena:
    """The agents and the jobs. `round` runs one job and strikes; agents that are gone are replaced after it."""

    def __init__(self, folder: Path) -> None:
        self._data = make_tables(folder / "tpch", SCALE)
        self.jobs = chaos_jobs(self._data, folder)
        self._agents = Agents(folder / "agents")
        self._members = [self._start(0)]
        self._members += [self._start(index, join=self._members[0]) for index in range(1, AGENTS)]
        self._settle()
        self._pool = ThreadPoolExecutor(1)
        self._usual_s = {job.name: min(self._usual(job) for _ in range(2)) for job in self.jobs}

    def close(self) -> None:
        self._agents.close()
        self._pool.shutdown()

    def round(self, rng: random.Random, *, coordinator_too: bool = True) -> Round:
        """One job with one blow, all of it chosen by `rng`."""
        job, blow = rng.choice(self.jobs), rng.choice(BLOWS)
        submitted_to = rng.randrange(AGENTS)
        victim = rng.choice([index for index in range(AGENTS) if coordinator_too or index != submitted_to])
        after_s = rng.uniform(0, self._usual_s[job.name])
        session = sabot.connect(self._members[submitted_to].control, progress=False)  # whose agent may be struck next
        tables = read_tables(session, self._data)
        started_s = time.monotonic()
        running = self._pool.submit(self._run, job, session, tables)
        threading.Event().wait(after_s)
        self._strike(victim, blow)
        outcome, hung, failed = _EXACT, False, ""
        try:
            outcome = job.check(running.result(ANSWERED_S))
        except StillRunning:
            hung = True
        except Exception as error:
            failed = f"{type(error).__name__}: {error}"
        took_s = time.monotonic() - started_s
        self._recover(victim, blow)
        if hung:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = ThreadPoolExecutor(1)
        return Round(
            job=job.name,
            blow=blow,
            coordinator=victim == submitted_to,
            after_s=after_s,
            took_s=took_s,
            usual_s=self._usual_s[job.name],
            outcome=outcome,
            hung=hung,
            failed=failed,
        )

    def _run(self, job: ChaosJob, session: Session, tables: Tables) -> list[Row]:
        with session:
            return list(job.run(tables))

    def _usual(self, job: ChaosJob) -> float:
        session = sabot.connect(self._members[0].control, progress=False)
        tables = read_tables(session, self._data)
        started_s = time.monotonic()
        rows = self._run(job, session, tables)
        took_s = time.monotonic() - started_s
        if job.check(rows) != _EXACT:
            raise AssertionError(f"{job.name} is wrong without a blow: {job.check(rows)}")
        return took_s

    def _strike(self, victim: int, blow: Blow) -> None:
        agent = self._members[victim]
        match blow:
            case "killed":
                agent.signal(signal.SIGKILL)
            case "frozen":
                agent.signal(signal.SIGSTOP)
            case "cut":
                agent.signal(signal.SIGUSR1)
            case "restarted":
                self._replace(victim, agent.ports())

    def _recover(self, victim: int, blow: Blow) -> None:
        if blow == "killed":
            self._replace(victim)
        self._members[victim].signal(signal.SIGCONT)
        self._settle()

    def _replace(self, index: int, ports: tuple[str, ...] = FREE_PORTS) -> None:
        self._members[index].close()
        self._members[index] = self._start(index, join=self._members[(index + 1) % AGENTS], ports=ports)

    def _start(
        self, index: int, *, join: AgentProcess | None = None, ports: tuple[str, ...] = FREE_PORTS
    ) -> AgentProcess:
        flags = () if join is None else ("--join", join.control)
        return self._agents.start(
            f"agent-{index}", *flags, ports=ports, module="tests.jobs.cuttable_agent", environment=ENVIRONMENT
        )

    def _settle(self) -> None:
        """Waits until all know all and nothing of any job is left anywhere."""
        incarnations = {agent.facts["incarnation"] for agent in self._members}
        for agent in self._members:
            _until(
                lambda agent=agent: {one.incarnation for one in agent.members()} == incarnations,
                f"{agent.facts['agent_id']} knows the other agents",
            )
            _until(lambda agent=agent: _is_free(agent), f"nothing is left of a job on {agent.facts['agent_id']}")


def _is_free(agent: AgentProcess) -> bool:
    status = agent.call("GetStatus", agent_pb2.StatusRequest())
    return (status.jobs_running, status.tasks_running, status.stored_bytes) == (0, 0, 0)


def _holds(fact: Callable[[], bool]) -> bool:
    """Not, too, where the first call to an agent finds the connection of the one that was there before."""
    try:
        return fact()
    except PeerLost:
        return False


def _until(fact: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + SETTLED_S
    while not _holds(fact):
        if time.monotonic() > end_s:
            raise AssertionError(f"not true within {SETTLED_S:g} s: {what}")
        threading.Event().wait(0.02)


@contextmanager
def arena(folder: Path) -> Iterator[Arena]:
    made = Arena(folder)
    try:
        yield made
    finally:
        made.close()


def told(rounds: list[Round]) -> str:
    """The one line that matters."""
    lost, doubled = (sum(getattr(one.outcome, name) for one in rounds) for name in ("lost", "doubled"))
    hangs, failed = sum(one.hung for one in rounds), sum(bool(one.failed) for one in rounds)
    misplaced = sum(one.outcome.misplaced for one in rounds)
    more = f", failed {failed}, in wrong order {misplaced}" if failed or misplaced else ""
    return f"{len(rounds)} kills, rows lost {lost}, rows doubled {doubled}, hangs {hangs}{more}"
