"""The page for Prometheus: the agent's numbers as AgentContext gives them, read when the page is asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric


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
    "shuffle_spill_bytes": Shown("spill_bytes", "Bytes of spilled rows on disk."),
    "shuffle_spilled_bytes_total": Shown("spilled_bytes", "Bytes of rows written to disk.", is_counter=True),
    "shuffle_streams_open": Shown("shuffle_streams_open", "Flight streams that are open."),
    "shuffle_chunks_received": Shown("shuffle_chunks_received", "Chunks received.", is_counter=True),
    "shuffle_chunks_repeated": Shown("shuffle_chunks_repeated", "Chunks received again and dropped.", is_counter=True),
    "shuffle_bytes_received": Shown("shuffle_bytes_received", "Bytes of chunks received.", is_counter=True),
    "shuffle_bytes_sent": Shown("shuffle_bytes_sent", "Bytes of chunks sent.", is_counter=True),
}


class MetricsPage:
    """The page as text; every call reads the numbers anew."""

    def __init__(
        self,
        *,
        metrics: Callable[[], dict[str, Any]],
        slots: Callable[[], list[dict[str, Any]]],
        operators: Callable[[], list[dict[str, Any]]],
    ) -> None:
        self._read_metrics = metrics
        self._read_slots = slots
        self._read_operators = operators
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
        if "memory_bytes" in numbers:
            yield _memory_family(agent_id, numbers["memory_bytes"])
        yield from self._slot_families(agent_id)
        yield from self._operator_families(agent_id)

    def _slot_families(self, agent_id: str) -> Iterator[Metric]:
        labels = ["agent_id", "slot", "source"]
        morsels = CounterMetricFamily("sabot_slot_morsels", "Morsels run.", labels=labels)
        busy = CounterMetricFamily("sabot_slot_busy_seconds", "Time spent in morsels.", labels=labels[:2])
        gil_wait = CounterMetricFamily(
            "sabot_slot_gil_wait_seconds", "Time in morsels before calls into Python began.", labels=labels[:2]
        )
        for slot in self._read_slots():
            slot_id = str(slot["slot_id"])
            for source in ("local", "network"):
                morsels.add_metric([agent_id, slot_id, source], slot[f"{source}_morsels"])
            busy.add_metric([agent_id, slot_id], slot["total_processing_time_us"] / 1e6)
            gil_wait.add_metric([agent_id, slot_id], slot["gil_wait_us"] / 1e6)
        yield morsels
        yield busy
        yield gil_wait

    def _operator_families(self, agent_id: str) -> Iterator[Metric]:
        labels = ["agent_id", "operator"]
        queue = HistogramMetricFamily("sabot_morsel_queue_seconds", "How long morsels waited.", labels=labels)
        run = HistogramMetricFamily("sabot_morsel_run_seconds", "How long morsels ran.", labels=labels)
        for stats in self._read_operators():
            for family, what in ((queue, "queue"), (run, "run")):
                buckets = cumulative(stats["bounds_us"], stats[f"{what}_counts"])
                family.add_metric([agent_id, stats["operator"]], buckets, stats[f"{what}_us"] / 1e6)
        yield queue
        yield run


def _memory_family(agent_id: str, accounts: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(
        "sabot_memory_bytes",
        "The ledger: store, outbox and results lie in allocated; credits and tasks are promised; committed is compared "
        "with bytes_max (0: no limit); idle waits for its next use.",
        labels=["agent_id", "account"],
    )
    for account, count in accounts.items():
        family.add_metric([agent_id, account], count)
    return family


def cumulative(bounds_us: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Buckets as Prometheus wants them: each counts what is below its bound in seconds, the last everything. Every
    other bound is shown, so that the page stays readable.
    """
    below = list(itertools.accumulate(counts))
    shown = [(repr(bound / 1e6), float(count)) for bound, count in zip(bounds_us, below, strict=False)][1::2]
    return [*shown, ("+Inf", float(below[-1]))]
