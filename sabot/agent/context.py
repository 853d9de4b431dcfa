"""AgentContext: the process's one seat for an agent's slots and its end of the shuffle.

It is where the houses meet: the slot pool's native handle is handed to the shuffle, so that what arrives is worked on
in the same slots. The daemon adds the ports for control and HTTP; a library user needs only this.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import pyarrow as pa

from sabot.agent.process import resident_bytes
from sabot.errors import UsageError
from sabot.native._native import Ledger
from sabot.shuffle.transport import ShuffleTransport, TransportLimits
from sabot.slots import TaskSlotManager
from sabot.slots.manager import TIMELINE_MORSELS, TIMELINE_MORSELS_MAX, TIMELINE_ROWS_MAX
from sabot.wire.addresses import is_loopback, is_wildcard

SLOTS_MAX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agent:
    """What exists between initialize and shutdown."""

    agent_id: str
    incarnation: int
    insecure: bool
    task_slot_manager: TaskSlotManager
    shuffle_transport: ShuffleTransport
    ledger: Ledger
    started_s: float


class AgentContext:
    """One agent in this process, from `initialize` to `shutdown`; may be initialised again, as a new incarnation.

    Get it by `get_instance`. Safe from many threads. As a context manager it shuts down at the end of the block.
    """

    _instance: ClassVar[AgentContext | None] = None
    _instance_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        if AgentContext._instance is not None:
            raise UsageError("there is one AgentContext per process; get it by AgentContext.get_instance()")
        self._lock = threading.Lock()
        self._agent: _Agent | None = None

    @classmethod
    def get_instance(cls) -> AgentContext:
        """The process's context, initialised or not."""
        with cls._instance_lock:
            if cls._instance is None:
                cls._instance = cls()
            return cls._instance

    def initialize(
        self,
        *,
        agent_id: str,
        num_slots: int = 0,
        host: str = "127.0.0.1",
        port: int = 8816,
        advertise_host: str | None = None,
        insecure: bool = False,
        timeline_morsels: int = TIMELINE_MORSELS,
        memory_bytes_max: int = 0,
        **shuffle_limits: Unpack[TransportLimits],
    ) -> AgentContext:
        """Starts the slots (0: one per core) and opens the Flight port (0: any free one), nothing else.

        `advertise_host` is what others are told in place of `host`. A host that is not loopback needs `insecure`: jobs
        carry Python code. `memory_bytes_max` (0: none) bounds what the agent holds and promises; what pyarrow allocates
        in this process counts once the caller says `pyarrow.set_memory_pool(context.ledger.pool)`, as the daemon does:
        a library does not change it unasked. `shuffle_limits` are those of ShuffleTransport. UsageError when already
        initialised, and for arguments that cannot be.
        """
        _check_agent_id(agent_id)
        _check_number("num_slots", num_slots, 0, SLOTS_MAX)
        _check_number("port", port, 0, 65535)
        _check_number("timeline_morsels", timeline_morsels, 0, TIMELINE_MORSELS_MAX)
        _check_number("memory_bytes_max", memory_bytes_max, 0, 2**62)
        _check_host(host, advertise_host, insecure)
        with self._lock:
            if self._agent is not None:
                raise UsageError(
                    f"AgentContext is initialised already, as agent {self._agent.agent_id}; use it, or shutdown() first"
                )
            incarnation = secrets.randbelow(2**64 - 1) + 1
            manager = TaskSlotManager(num_slots, timeline_morsels=timeline_morsels)
            ledger = Ledger(memory_bytes_max)
            try:
                transport = ShuffleTransport(
                    host=host,
                    port=port,
                    advertise_host=advertise_host,
                    incarnation=incarnation,
                    slot_pool=manager.native_pool,
                    ledger=ledger,
                    **shuffle_limits,
                )
            except BaseException:
                manager.shutdown()
                raise
            ledger.start_watch()
            self._agent = _Agent(
                agent_id=agent_id,
                incarnation=incarnation,
                insecure=insecure,
                task_slot_manager=manager,
                shuffle_transport=transport,
                ledger=ledger,
                started_s=time.monotonic(),
            )
        return self

    @property
    def initialized(self) -> bool:
        """Whether there is an agent."""
        return self._agent is not None

    @property
    def agent_id(self) -> str:
        """The agent's name."""
        return self._required().agent_id

    @property
    def incarnation(self) -> int:
        """This run of the agent: random, 64 bit, never 0."""
        return self._required().incarnation

    @property
    def insecure(self) -> bool:
        """Whether it was initialised as `insecure`."""
        return self._required().insecure

    @property
    def task_slot_manager(self) -> TaskSlotManager:
        """The agent's slots."""
        return self._required().task_slot_manager

    @property
    def shuffle_transport(self) -> ShuffleTransport:
        """The agent's end of the shuffle."""
        return self._required().shuffle_transport

    @property
    def ledger(self) -> Ledger:
        """What the agent holds and has promised."""
        return self._required().ledger

    def scale_slots(self, num_slots: int) -> None:
        """Makes it `num_slots` slots, 1 to 1024; a slot that goes finishes its morsel first."""
        _check_number("num_slots", num_slots, 1, SLOTS_MAX)
        with self._lock:
            manager = self._required().task_slot_manager
            more = num_slots - manager.get_num_slots()
            if more > 0:
                manager.add_slots(more)
            elif more < 0:
                manager.remove_slots(-more)

    def get_slot_stats(self) -> list[dict[str, Any]]:
        """As TaskSlotManager.get_slot_stats."""
        return [dict(slot) for slot in self.task_slot_manager.get_slot_stats()]

    def get_operator_stats(self) -> list[dict[str, Any]]:
        """As TaskSlotManager.get_operator_stats."""
        return [dict(operator) for operator in self.task_slot_manager.get_operator_stats()]

    def get_timeline(self, *, morsels_max: int = TIMELINE_ROWS_MAX) -> pa.Table:
        """As TaskSlotManager.get_timeline."""
        return self.task_slot_manager.get_timeline(morsels_max=morsels_max)

    def get_metrics(self) -> dict[str, Any]:
        """The agent's numbers at this moment; what the shuffle counts has the prefix `shuffle_`."""
        agent = self._required()
        manager = agent.task_slot_manager
        slots = self.get_slot_stats()
        summed = (
            *("morsels_processed", "local_morsels", "network_morsels", "stolen_morsels", "total_processing_time_us"),
            *("idle_us", "busy_us", "gil_wait_us"),
        )
        return {
            "agent_id": agent.agent_id,
            "incarnation": agent.incarnation,
            "uptime_s": time.monotonic() - agent.started_s,
            "resident_bytes": resident_bytes(),
            "memory_bytes": agent.ledger.snapshot(),
            "num_slots": manager.get_num_slots(),
            "available_slots": manager.get_available_slots(),
            "queue_depth": manager.get_queue_depth(),
            **{name: sum(int(slot[name]) for slot in slots) for name in summed},
            **{f"shuffle_{name}": value for name, value in agent.shuffle_transport.stats().items()},
        }

    def shutdown(self) -> None:
        """Closes the Flight port, then ends the slots; nothing when there is no agent."""
        with self._lock:
            agent, self._agent = self._agent, None
            if agent is not None:
                agent.shuffle_transport.close()
                agent.task_slot_manager.shutdown()
                agent.ledger.stop_watch()

    def __enter__(self) -> AgentContext:
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()

    def _required(self) -> _Agent:
        agent = self._agent
        if agent is None:
            raise UsageError("AgentContext is not initialised; call initialize(agent_id=...) first")
        return agent


def _check_agent_id(agent_id: str) -> None:
    if not isinstance(agent_id, str) or not agent_id:
        raise UsageError(f"agent_id must be a name, not {agent_id!r}")


def _check_number(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high}, not {value!r}")


def _check_host(host: str, advertise_host: str | None, insecure: bool) -> None:
    if not is_loopback(host) and not insecure:
        raise UsageError(
            f"host {host} is not a loopback address, and whoever reaches the agent's port can read and write its "
            "shuffles: there is no mutual TLS yet. Use 127.0.0.1, or, in a network that you trust as a whole, pass "
            "insecure=True"
        )
    if is_wildcard(host) and advertise_host is None:
        raise UsageError(
            f"host {host} is no address for others; pass advertise_host=, the name or address by which they reach it"
        )
