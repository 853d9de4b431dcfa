"""A whole cluster in one seed: agents, a network, faults, one job and, when all faults are over, another."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sabot.agent.coordination.hot_partitions import HotRule
from sabot.agent.coordination.slow_tasks import SlowRule
from sabot.dataflow.stage import JobPlan, WriteOutput
from sabot.wire.member import Member

from .agent import Agent, new_member
from .checks import Checks, Violation
from .client import Client
from .clock import Clock
from .disk import Disk
from .faults import Fault, Kind, Odds, Pace, draw_bytes_max, draw_faults, draw_odds, draw_pace, draw_storage_faults
from .folder import Use
from .jobs import CONTENDING_SHARE, contending, make_plan
from .network import Network
from .sketches import sketch_of_plan

LIVENESS_S = 60.0
"""How long after the last fault a job may take to end: the deadline of a stream, and of pings to a few coordinators."""
SHORT_S = 8.0
"""An agent that is away for so long is not taken for lost: pings have 10 s."""
SLOW = SlowRule(factor=3.0, median_s_min=0.05)
"""Which tasks get a second attempt."""
_DRAIN_LOOK_S = 0.1
_SETTLE_S = 45.0  # until an agent that was told nothing knows that it takes no part, and that a stream is over


@dataclass(frozen=True, slots=True, kw_only=True)
class Guards:
    """What is always on, and can be switched off here to see it needed."""

    dedupe: bool = True
    check_manifests: bool = True
    verify_checksums: bool = True
    audit_readers: bool = True
    check_epochs: bool = True


ALL_ON = Guards()


class Cluster:
    """`run` carries out the seed; raises Violation. How many `agents`, `faults`, `odds` and `bytes_max` (memory and
    disk of an agent), `pace`, and whether jobs write files (`writes`), read `copies` and join `hot` partitions, are
    drawn where they are not given; with the faults, whether two jobs write to one folder at the same time (`contend`).
    """

    def __init__(
        self,
        seed: int,
        *,
        guards: Guards = ALL_ON,
        odds: Odds | None = None,
        faults: list[Fault] | None = None,
        agents: int | None = None,
        bytes_max: tuple[int, int] | None = None,
        slow: SlowRule = SLOW,
        pace: Pace | None = None,
        writes: bool | None = None,
        contend: bool | None = None,
        copies: bool | None = None,
        hot: bool | None = None,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self._late = random.Random(f"{seed} late")  # for what came after the seeds that tests name
        self.clock = Clock()
        self.guards = guards
        self.slow = slow
        self.writes, self._plans = writes, {"copies": copies, "hot": hot}
        self._contend_share = CONTENDING_SHARE if faults is None and contend is None else float(bool(contend))
        self.disk = Disk()
        self.uses: list[Use] = []  # of folders, under way
        self.fired: Counter[str] = Counter()
        self._trace = trace
        count = self.rng.randint(2, 5)
        count = agents or count
        self.streams_per_peer = self.rng.randint(1, 3)
        drawn = draw_bytes_max(self.rng)
        self.bytes_max = drawn if bytes_max is None else bytes_max
        self.odds = draw_odds(self.rng) if odds is None else replace(odds)
        self.hot = HotRule(factor=self._late.uniform(1.0, 2.0), rows_min=1)
        self.pace = draw_pace(self._late, count) if pace is None else pace
        self._faults = draw_faults(self.rng, count) if faults is None else list(faults)
        self._faults += draw_storage_faults(self._late) if faults is None else []
        self._faults_end_s = 0.0
        self._over = False
        self.changes = 0  # of who is there and who leaves
        self._happened: Counter[str] = Counter()
        self.struck: set[tuple[str, int]] = set()  # agents that were away, or thought that others were
        self.network = Network(self.clock, self.rng, self.odds, self.fault)
        self.checks = Checks(self)
        self.agents: list[Agent] = []
        self.clients: list[Client] = []
        for place in range(count):
            self._start(place)

    def run(self) -> str:
        """How the first job ended, for statistics."""
        thresholds = gc.get_threshold()
        gc.set_threshold(100_000)  # a run makes many values and few cycles
        try:
            return self._run()
        finally:
            for use in self.uses:
                use.kill()
            self.disk.remove()
            gc.set_threshold(*thresholds)

    def _run(self) -> str:
        first = self._job("j1", rival="k1")
        if not {"crash", "freeze", "long freeze", "cut", "long cut"}.isdisjoint(self.fired):
            self._calm()
            living = self.takers
            if living:
                self.fired.clear()
                self._job("j2", self.rng.choice(living))
        self._calm()
        self.checks.nothing_left([client.plan.job_id for client in self.clients])
        for client in self.clients:
            self.checks.dataset(client)
        return "answer" if first.error is None else type(first.error).__name__

    def watch(self, trace: Callable[[str], None]) -> None:
        """From now on `trace` gets a line for everything that happens."""
        self._trace = trace

    # What agents call

    @property
    def traces(self) -> bool:
        return self._trace is not None

    def say(self, what: str, text: str, *values: object) -> None:
        if self._trace is not None:
            self._trace(f"{self.clock.now_s:10.4f}  {what:20s} {text % values}")

    def happen(self, happening: str, place: int, text: str, *values: object) -> None:
        """Something that faults may wait for has happened at the agent in `place`."""
        self._happened[happening] += 1
        if self._trace is not None:
            self.say(happening, f"agent-{place} {text}", *values)
        if not self._faults:
            return
        for fault in [f for f in self._faults if f.happening == happening and f.count == self._happened[happening]]:
            self._faults.remove(fault)
            self.clock.after(fault.later_s, None, partial(self._strike, fault, place))

    def fault(self, name: str, text: str, *values: object) -> None:
        """A fault has struck."""
        self.fired[name] += 1
        if name == "dropped chunk":  # nobody misses it before its stream's deadline
            self._faults_end_s = max(self._faults_end_s, self.clock.now_s)
        self.say("FAULT " + name, text, *values)

    @property
    def takers(self) -> list[Agent]:
        """The agents that take new jobs."""
        return [agent for agent in self.agents if not agent.process.dead and not agent.draining]

    def living(self, member: Member) -> Agent | None:
        """The agent that is `member`, if it has not died."""
        for agent in self.agents:
            if agent.member.identity == member.identity and not agent.process.dead:
                return agent
        return None

    # One run

    def _job(self, job_id: str, agent: Agent | None = None, *, rival: str = "") -> Client:
        """Runs a job to its end, and beside it perhaps another one, `rival`, that writes to the same folder."""
        agent = agent or self.rng.choice(self.agents)
        members = [other.member for other in self.takers]
        plan = make_plan(self.rng, job_id, members, self.disk.folder, writes=self.writes, **self._plans)
        clients = [self._begin(plan, agent)]
        contend = self._late.random() < self._contend_share
        if rival and contend and isinstance(plan.stages[-1].output, WriteOutput):
            other = make_plan(self._late, rival, members, self.disk.folder, writes=True, copies=False)
            clients.append(self._begin(contending(self._late, plan, other), self._late.choice(self.agents)))
        begun_s, limit_s = self.clock.now_s, LIVENESS_S * max(1.0, self.pace.longest_s)
        while not all(client.ended for client in clients):
            late = self.clock.now_s > max(begun_s, self._faults_end_s) + limit_s
            if late or not self.clock.step():
                ids = [client.plan.job_id for client in clients if not client.ended]
                raise Violation(f"{ids} have not ended by {self.clock.now_s:.1f} s")
        for client in clients:
            self.checks.outcome(client)
        return clients[0]

    def _begin(self, plan: JobPlan, agent: Agent) -> Client:
        self.checks.expect(plan)
        self.say("client", "job %s on agent-%s: %s", plan.job_id, agent.place, sketch_of_plan(plan))
        client = Client(self, agent, plan)
        self.clients.append(client)
        return client

    def _struck_job(self) -> Client:
        """One of those that run, where there are several."""
        running = [client for client in self.clients if not client.ended] or self.clients[-1:]
        return running[0] if len(running) == 1 else self._late.choice(running)

    def _calm(self) -> None:
        """No more faults, and those that last are over."""
        self._over = True
        self._faults.clear()
        for name in Odds.__slots__:
            setattr(self.odds, name, 0.0)
        end_s = max(self.clock.now_s, self._faults_end_s) + _SETTLE_S
        while (due_s := self.clock.next_due_s()) is not None and due_s <= end_s:
            self.clock.step()

    def _start(self, place: int) -> None:
        agent = Agent(self, place, new_member(place, self.rng))
        self.agents[place : place + 1] = [agent]
        self.changes += 1
        self.network.nodes[agent.address] = agent
        self.network.silent.discard(agent.address)

    # Faults

    def _strike(self, fault: Fault, where: int) -> None:
        if self._over:
            return
        place = (where if fault.place is None else fault.place) % len(self.agents)
        agent = self.agents[place]
        client = self._struck_job()
        coordinator = client.driver
        if fault.coordinator is False and coordinator is not None and agent is coordinator.agent:
            agent = self.agents[place - 1]
        elif fault.coordinator and coordinator is not None:
            agent = coordinator.agent
        if agent.process.dead:
            return
        match fault.kind:
            case Kind.JOIN | Kind.DRAIN:
                self._come_or_go(fault.kind, agent)
            case Kind.ROT | Kind.FAILING_DISK:
                self._spoil(fault.kind, agent)
            case _:
                self._hit(fault, agent, client)

    def _hit(self, fault: Fault, agent: Agent, client: Client) -> None:
        """The agent, or the client's stream."""
        place = agent.place
        end_s = self.clock.now_s + fault.lasts_s
        if fault.kind not in {Kind.CANCEL, Kind.BREAK}:
            self.struck.add(agent.member.identity)
        length = "long " if fault.lasts_s > SHORT_S or not {"freeze", "cut"}.isdisjoint(self.fired) else ""
        match fault.kind:
            case Kind.CRASH:
                self.fault("crash", "agent-%s%s", place, ", silently" if fault.silent else "")
                self._crash(agent, fault)
            case Kind.FREEZE:
                self.fault(length + "freeze", "agent-%s for %.3f s", place, fault.lasts_s)
                agent.process.frozen = True
                self.clock.after(fault.lasts_s, None, partial(self._thaw, agent))
            case Kind.CUT:
                other = self.agents[fault.other % len(self.agents)]
                self.struck.add(other.member.identity)
                self.fault(length + "cut", "agent-%s from agent-%s for %.3f s", place, other.place, fault.lasts_s)
                self.network.cut(agent.address, other.address, end_s)
            case Kind.JUMP:
                self.fault("jump", "the clock of agent-%s by %.3f s", place, fault.lasts_s)
                self.clock.jump(agent.process, fault.lasts_s)
                return
            case Kind.CANCEL:
                self.fault("cancel", "by the client")
                client.cancel()
                return
            case Kind.BREAK:
                self.fault("broken events", "from the coordinator to the client")
                client.break_stream()
        self._faults_end_s = max(self._faults_end_s, end_s)

    def _spoil(self, kind: Kind, agent: Agent) -> None:
        """What the agent holds goes bad."""
        if kind is Kind.FAILING_DISK:
            self.fault("failing disk", "of agent-%s", agent.place)
            agent.memory.disk_failed = True
        elif agent.rot(self._late):
            self.fault("rotten chunk", "in what agent-%s holds", agent.place)

    def _come_or_go(self, kind: Kind, agent: Agent) -> None:
        """Nobody may be the worse for it."""
        if kind is Kind.JOIN:
            self.say("join", "agent-%s comes", len(self.agents))
            self._start(len(self.agents))
        elif not agent.draining and len(self.takers) > 1:
            self.say("drain", "agent-%s takes nothing new", agent.place)
            agent.draining = True
            self.struck.add(agent.member.identity)  # it takes no job over
            self.changes += 1
            self._leave_when_free(agent)

    def _leave_when_free(self, agent: Agent) -> None:
        """It ends once no job that it has a part in goes on, and no client fetches."""
        if agent.process.dead:
            return
        if agent.jobs or agent.drivers or any(not client.ended for client in self.clients if agent.results):
            self.clock.after(_DRAIN_LOOK_S, agent.process, partial(self._leave_when_free, agent))
            return
        self.say("left", "agent-%s", agent.place)
        agent.process.dead = True
        self.network.process_died(agent.address, agent.process, silent=False)

    def _crash(self, agent: Agent, fault: Fault) -> None:
        agent.process.dead = True
        self.network.process_died(agent.address, agent.process, silent=fault.silent)
        for client in self.clients:
            if not fault.silent:
                client.agent_died(agent)
        if fault.lasts_s:
            self.clock.after(fault.lasts_s, None, partial(self._restart, agent.place))

    def _restart(self, place: int) -> None:
        self._start(place)
        self.say("restart", "agent-%s is back at its address as another", place)

    def _thaw(self, agent: Agent) -> None:
        if not agent.process.dead:
            self.say("thaw", "agent-%s", agent.place)
            self.clock.thaw(agent.process)
