"""Agents in this process, with real slots, ports and job drivers on one loop, so that a test can look inside them."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import sabot
from sabot.agent.cluster.membership import Membership
from sabot.agent.cluster.peers import Peers
from sabot.agent.control import ControlServer, ControlService
from sabot.agent.jobs.job_driver import JobDriver
from sabot.client.session import Session
from sabot.config import Config, load_config
from sabot.shuffle.transport import ShuffleTransport
from sabot.slots import TaskSlotManager
from sabot.wire.member import Member

T = TypeVar("T")
WAIT_S = 60.0  # ends a test that would wait for ever; how long things take is not tested by it
_incarnations = itertools.count(1)


@dataclass(slots=True, kw_only=True)
class Seat:
    """What AgentContext gives a job driver; there may be many in a process."""

    agent_id: str
    incarnation: int
    task_slot_manager: TaskSlotManager
    shuffle_transport: ShuffleTransport
    insecure: bool = False


@dataclass(slots=True)
class Agent:
    """One agent; `stack` closes what it has opened."""

    seat: Seat
    member: Member
    driver: JobDriver
    control: ControlServer
    membership: Membership
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def transport(self) -> ShuffleTransport:
        return self.seat.shuffle_transport

    def held(self) -> tuple[int, int, int]:
        """Jobs, running tasks, and bytes kept of shuffles and published tables."""
        stats = self.transport.stats()
        return (
            self.driver.jobs_running(),
            self.driver.tasks_running(),
            stats["stored_bytes"] + stats["published_bytes"],
        )


class InProcessCluster:
    """`agents` agents that know each other, from the beginning of a with block to its end. Their tables are small: none
    is broadcast unless a flag says so.
    """

    def __init__(self, agents: int = 2, *, slots: int = 1, **flags: Any) -> None:
        self._count = agents
        self._slots = slots
        # Functions that hold their tasks are the tests' own: nobody should help them out.
        flags = {"jobs.broadcast_bytes_max": 0, "jobs.slow_task_factor": 1_000_000, **flags}
        self._config = load_config(environment={}, flags=flags)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-agents")
        self._sessions: list[Session] = []
        self.agents: list[Agent] = []

    def __enter__(self) -> InProcessCluster:
        self._thread.start()
        for index in range(self._count):
            self.agents.append(self.on_loop(open_agent(f"agent-{index}", self._slots, self._config)))
        for agent in self.agents:
            for other in self.agents:
                self.on_loop(admit(agent, other.member))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self._sessions:
            session.close()
        for agent in self.agents:
            self.on_loop(agent.stack.aclose())
        self.agents = []  # the library keeps a thread for each connection until it is collected
        self.on_loop(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` on the agents' loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def connect(self, agent: int = 0, **options: Any) -> Session:
        session = sabot.connect(self.agents[agent].member.control_address, progress=False, **options)
        self._sessions.append(session)
        return session

    def check_nothing_held(self) -> None:
        """Fails unless every agent frees all jobs, tasks and bytes, once the sessions are closed."""
        for session in self._sessions:
            session.close()
        self.wait_until(lambda: all(agent.held() == (0, 0, 0) for agent in self.agents))

    def wait_until(self, fact: Callable[[], bool]) -> None:
        """Looks at `fact` on the agents' loop, again and again, until it is true."""

        async def look() -> bool:
            return fact()

        end_s = time.monotonic() + WAIT_S
        while not self.on_loop(look()):
            assert time.monotonic() < end_s, "it does not come true"
            threading.Event().wait(0.005)


async def open_agent(agent_id: str, slots: int, config: Config) -> Agent:
    incarnation = next(_incarnations)
    manager = TaskSlotManager(slots)
    transport = ShuffleTransport(incarnation=incarnation, slot_pool=manager.native_pool)
    seat = Seat(agent_id=agent_id, incarnation=incarnation, task_slot_manager=manager, shuffle_transport=transport)
    control = ControlServer("127.0.0.1", 0)
    member = Member(
        agent_id=agent_id,
        incarnation=incarnation,
        control_address=f"127.0.0.1:{control.port}",
        flight_address=transport.address,
        http_address="127.0.0.1:1",
        slots=slots,
    )
    membership = Membership(member)
    driver = JobDriver(context=seat, membership=membership, config=config)  # type: ignore[arg-type]
    agent = Agent(seat, member, driver, control, membership)
    agent.stack.callback(manager.shutdown)
    agent.stack.callback(transport.close)
    agent.stack.push_async_callback(driver.close)
    agent.stack.push_async_callback(control.stop, 0.1)
    peers = Peers(membership, incarnation_at=no_one, deadline_s=1.0)
    service = ControlService(
        context=seat,  # type: ignore[arg-type]
        membership=membership,
        peers=peers,
        jobs=driver,
        state_dir="",
        request_stop=lambda: None,
    )
    await control.start(service)
    return agent


async def admit(agent: Agent, other: Member) -> None:
    agent.membership.on_join(other, forwarded=True)


async def no_one(address: str) -> int | None:
    return None
