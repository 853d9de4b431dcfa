"""The daemon: opens an agent's ports in order, joins, serves until it is told to stop, drains, and closes everything.

SIGTERM and SIGINT drain, as Stop does: no new tasks, what it holds for jobs is read by their other agents, all within
agent.drain_s, the members are told, exit 0. A second signal ends the process at once, by the system's own default, so
that even a held GIL cannot delay it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pyarrow as pa

from sabot.agent.autoscaling import autoscale
from sabot.agent.cluster.membership import Membership
from sabot.agent.cluster.peers import GOODBYE_DEADLINE_S, Peers
from sabot.agent.context import AgentContext
from sabot.agent.control import ControlServer, ControlService, Jobs
from sabot.agent.http import HttpServer
from sabot.agent.jobs.job_driver import JobDriver
from sabot.agent.metrics import MetricsPage
from sabot.agent.ports import check_port
from sabot.agent.state_dir import StateDir
from sabot.config import Config, default_state_dir
from sabot.config.machine import default_memory_bytes_max
from sabot.errors import PeerError
from sabot.slots.autoscale import Autoscaler
from sabot.wire.addresses import format_address
from sabot.wire.member import Member

PROBE_DEADLINE_S = 1.0
CLOSE_DEADLINE_S = 5.0
EXIT_NOT_DRAINED = 1

log = logging.getLogger("sabot.agent")

MakeJobs = Callable[[AgentContext, Membership, Config], Jobs]


def serve(config: Config, *, announce: Callable[[str], None]) -> int:
    """Runs an agent in this process until it is stopped; the exit code. `announce` gets the lines for its user."""
    return asyncio.run(Daemon(config, announce=announce).run())


def _job_driver(context: AgentContext, membership: Membership, config: Config) -> Jobs:
    driver: Jobs = JobDriver(context=context, membership=membership, config=config)
    return driver


class Daemon:
    """One agent's life; `run` it once."""

    def __init__(self, config: Config, *, announce: Callable[[str], None], make_jobs: MakeJobs = _job_driver) -> None:
        self.config = config
        self.agent_id = config.agent.id or socket.gethostname()
        self._hangs = False
        self._announce = announce
        self._make_jobs = make_jobs
        self._stopping = asyncio.Event()
        self._serving = False
        self._state_dir = StateDir(Path(config.agent.state_dir or default_state_dir(self.agent_id)))

    async def run(self) -> int:
        """0 when it was told to stop and every running task finished, else EXIT_NOT_DRAINED.

        Does not return, but ends the process, when a slot does not end: nothing in Python can end its thread.
        """
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            async with AsyncExitStack() as opened:
                return await self._live(opened)
        finally:
            for number in signals:
                loop.remove_signal_handler(number)
            if self._hangs:
                log.error("slots did not end deadline_s=%s; ending the process", CLOSE_DEADLINE_S)
                logging.shutdown()
                sys.stdout.flush()
                os._exit(EXIT_NOT_DRAINED)

    def stop(self) -> None:
        """Starts the drain, as a first signal does; only on the loop."""
        self._stopping.set()

    async def _live(self, opened: AsyncExitStack) -> int:
        agent = self.config.agent
        opened.enter_context(self._state_dir)
        for what, port, key in (
            ("the control port", agent.control_port, "agent.control_port"),
            ("the Flight port", agent.port, "agent.port"),
            ("the HTTP port", agent.http_port, "agent.http_port"),
        ):
            check_port(agent.host, port, what=what, key=key)
        context = self._open_context(opened)
        control = ControlServer(agent.host, agent.control_port)
        opened.push_async_callback(control.stop, 0.5)
        page = MetricsPage(
            metrics=context.get_metrics, slots=context.get_slot_stats, operators=context.get_operator_stats
        )
        http = HttpServer(metrics=page, serving=lambda: self._serving)
        await http.start(agent.host, agent.http_port)
        opened.push_async_callback(http.stop)

        membership = Membership(self._member(context, control.port, http.port))
        peers = Peers(
            membership,
            incarnation_at=lambda address: _incarnation_at(context, address),
            deadline_s=self.config.jobs.peer_deadline_s,
        )
        opened.push_async_callback(peers.close)
        jobs = self._make_jobs(context, membership, self.config)
        opened.push_async_callback(jobs.close)
        service = ControlService(
            context=context,
            membership=membership,
            peers=peers,
            jobs=jobs,
            state_dir=str(self._state_dir.folder),
            request_stop=self.stop,
        )
        await control.start(service)
        if not await self._join(peers):
            return 0
        self._state_dir.write(membership.me)
        await self._set_serving(control, True)
        self._say_ready(membership.me, context.task_slot_manager.get_num_slots())
        if span := self.config.slots.autoscale:
            scaler = Autoscaler(slots_min=span.min, slots_max=span.max)
            scaling = autoscale(context, scaler, lambda slots: peers.carry_out(membership.on_slots(slots)))
            opened.push_async_callback(_cancelled, asyncio.ensure_future(scaling))
        await self._stopping.wait()
        return await self._drain(control, membership, peers, jobs)

    def _open_context(self, opened: AsyncExitStack) -> AgentContext:
        agent, shuffle = self.config.agent, self.config.shuffle
        context = AgentContext.get_instance()
        context.initialize(
            agent_id=self.agent_id,
            num_slots=self.config.slots.count,
            timeline_morsels=self.config.slots.timeline_morsels,
            memory_bytes_max=self._memory_bytes_max(),
            host=agent.host,
            port=agent.port,
            advertise_host=agent.advertise_host,
            insecure=agent.insecure,
            open_wait_s=shuffle.open_wait_s,
            stream_timeout_s=shuffle.stream_timeout_s,
            resume_s=shuffle.resume_s,
            streams_per_peer=shuffle.streams_per_peer,
            compression=shuffle.compression,
            stream_idle_s=shuffle.stream_idle_s,
            streams_max=shuffle.streams_max,
            chunk_bytes_max=shuffle.chunk_bytes_max,
            spill_dirs=self.config.spill.dirs or [str(self._state_dir.folder / "spill")],
            spill_bytes_max=self.config.spill.bytes_max,
        )
        opened.push_async_callback(self._close_context, context)
        opened.callback(pa.set_memory_pool, pa.default_memory_pool())
        pa.set_memory_pool(context.ledger.pool)
        return context

    def _memory_bytes_max(self) -> int:
        configured = self.config.memory.bytes_max
        return default_memory_bytes_max() if configured == "auto" else configured

    async def _close_context(self, context: AgentContext) -> None:
        """A user's function that does not end would hold its slot, and so the process, for ever: hence the deadline."""
        closing = asyncio.get_running_loop().run_in_executor(None, context.shutdown)
        done, _ = await asyncio.wait([closing], timeout=CLOSE_DEADLINE_S)
        self._hangs = not done

    async def _join(self, peers: Peers) -> bool:
        """Whether it joined; not, when it is told to stop meanwhile."""
        joining = asyncio.ensure_future(peers.join(self.config.agent.join))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({joining, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not joining.done():
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)
            return False
        await joining
        return True

    async def _drain(self, control: ControlServer, membership: Membership, peers: Peers, jobs: Jobs) -> int:
        log.info("draining agent_id=%s deadline_s=%s", self.agent_id, self.config.agent.drain_s)
        self._state_dir.remove_agent_file()
        await self._set_serving(control, False)
        telling = peers.carry_out(membership.on_drain(), deadline_s=GOODBYE_DEADLINE_S)
        await asyncio.gather(jobs.drain(self.config.agent.drain_s), telling)
        left_behind = jobs.tasks_running() + jobs.jobs_running()
        if left_behind:
            log.warning(
                "drain deadline reached tasks_running=%d jobs_running=%d key=agent.drain_s",
                jobs.tasks_running(),
                jobs.jobs_running(),
            )
        await peers.leave()
        return EXIT_NOT_DRAINED if left_behind else 0

    async def _set_serving(self, control: ControlServer, serving: bool) -> None:
        self._serving = serving
        await control.set_serving(serving)

    def _on_signal(self, number: signal.Signals) -> None:
        log.info("signal=%s", number.name)
        self.stop()
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)

    def _member(self, context: AgentContext, control_port: int, http_port: int) -> Member:
        host = self.config.agent.advertise_host or self.config.agent.host
        return Member(
            agent_id=self.agent_id,
            incarnation=context.incarnation,
            control_address=format_address(host, control_port),
            flight_address=context.shuffle_transport.address,
            http_address=format_address(host, http_port),
            slots=context.task_slot_manager.get_num_slots(),
        )

    def _say_ready(self, me: Member, slots: int) -> None:
        self._announce(f"agent {me.agent_id} is ready: {slots} slots, pid {os.getpid()}")
        self._announce(f'control  {me.control_address}  (sabot.connect("{me.control_address}"), --agent, --join)')
        self._announce(f"flight   {me.flight_address}")
        self._announce(f"http     http://{me.http_address}/metrics  http://{me.http_address}/healthz")
        self._announce(f"state    {self._state_dir.folder}")
        if self.config.agent.insecure:
            self._announce(f"insecure: whoever reaches these ports can run code here ({INSECURE_ADVICE})")


INSECURE_ADVICE = "without --insecure only this machine can"


async def _cancelled(task: asyncio.Future[None]) -> None:
    task.cancel()
    [error] = await asyncio.gather(task, return_exceptions=True)
    if isinstance(error, Exception):
        log.error("autoscale stopped error=%r", error)


async def _incarnation_at(context: AgentContext, flight_address: str) -> int | None:
    """Who answers there, or None: asked natively and in a thread, so that a frozen address holds up nothing here."""
    try:
        reply = await asyncio.to_thread(context.shuffle_transport.ping, flight_address, timeout_s=PROBE_DEADLINE_S)
    except PeerError:
        return None
    return reply.incarnation
