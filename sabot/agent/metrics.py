"""The page for Prometheus: the agent's numbers as AgentContext gives them, read when the page is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class Shown(NamedTuple):
    """How a number of get_metrics is called on the page; one that only grows is a counter."""

    name: str
    about: str
    is_counter: bool = False


SHOWN = {
    "uptime_s": Shown("uptime_seconds", "Time since the agent was initialised."),
    "resident_bytes": Shown("resident_bytes", "Resident memory of the agent and its child processes."),
    "num_slots": Shown("slots", "Task slots."),
    "available_slots": Shown("slots_available", "Task slots that run nothing."),
    "queue_depth": Shown("queue_depth", "Morsels that wait for a slot."),
    "shuffle_shuffles": Shown("shuffles", "Shuffles that are open here."),
    "shuffle_stored_bytes": Shown("shuffle_stored_bytes", "Bytes of chunks in the store."),
    "shuffle_stored_chunks": Shown("shuffle_stored_chunks", "Chunks in the store."),
    "shuffle_published_bytes": Shown("shuffle_published_bytes", "Bytes published for pull: uploads and results."),
    "shuffle_chunks_received": Shown("shuffle_chunks_received", "Chunks received.", is_counter=True),
    "shuffle_chunks_repeated": Shown("shuffle_chunks_repeated", "Chunks received again and dropped.", is_counter=True),
    "shuffle_bytes_received": Shown("shuffle_bytes_received", "Bytes of chunks received.", is_counter=True),
    "shuffle_bytes_sent": Shown("shuffle_bytes_sent", "Bytes of chunks sent.", is_counter=True),
}


class MetricsPage:
    """The page as text; every call reads the numbers anew."""

    def __init__(self, *, metrics: Callable[[], dict[str, Any]], slots: Callable[[], list[dict[str, Any]]]) -> None:
        self._read_metrics = metrics
        self._read_slots = slots
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def __call__(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing is known before it is read; without this, registering would already read it."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Asked by the registry at each scrape."""
        numbers = self._read_metrics()
        agent_id = str(numbers["agent_id"])
        about = GaugeMetricFamily(
            "sabot_agent_info", "Which run of the agent this is.", labels=["agent_id", "incarnation"]
        )
        about.add_metric([agent_id, f"{numbers['incarnation']:016x}"], 1)
        yield about
        for key, shown in SHOWN.items():
            if key in numbers:
                kind = CounterMetricFamily if shown.is_counter else GaugeMetricFamily
                family = kind(f"sabot_{shown.name}", shown.about, labels=["agent_id"])
                family.add_metric([agent_id], numbers[key])
                yield family
        yield from self._slot_families(agent_id)

    def _slot_families(self, agent_id: str) -> Iterator[Metric]:
        labels = ["agent_id", "slot", "source"]
        morsels = CounterMetricFamily("sabot_slot_morsels", "Morsels run.", labels=labels)
        busy = CounterMetricFamily("sabot_slot_busy_seconds", "Time spent in morsels.", labels=labels[:2])
        for slot in self._read_slots():
            slot_id = str(slot["slot_id"])
            for source in ("local", "network"):
                morsels.add_metric([agent_id, slot_id, source], slot[f"{source}_morsels"])
            busy.add_metric([agent_id, slot_id], slot["total_processing_time_us"] / 1e6)
        yield morsels
        yield busy
