"""The HTTP port: /metrics for Prometheus and /healthz for whoever asks, on the daemon's loop, GET and HEAD only.

Numbers are read when they are asked for, so an agent that nobody scrapes spends nothing on them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from sabot.errors import UsageError
from sabot.wire.addresses import format_address

REQUEST_BYTES_MAX = 8 * 1024
REQUEST_DEADLINE_S = 5.0
CONNECTIONS_MAX = 32
PLAIN = "text/plain; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"

GAUGES = {"num_slots", "available_slots", "queue_depth", "uptime_s", "resident_bytes"}
STORED = {"stored_bytes", "published_bytes"}
SHOWN_OTHERWISE = {
    *("incarnation", "total_processing_time_us"),
    *("morsels_processed", "local_morsels", "network_morsels", "stolen_morsels"),
}

log = logging.getLogger("sabot.agent")


class HttpServer:
    """Serves `metrics()` and whether the agent is `serving()`; open from `start` to `stop`."""

    def __init__(self, *, metrics: Callable[[], bytes], serving: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._serving = serving
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Opens the port; 0: any free one, see `port`."""
        try:
            self._server = await asyncio.start_server(self._connected, host, port, limit=REQUEST_BYTES_MAX)
        except OSError as error:
            address = format_address(host, port)
            raise UsageError(
                f"HTTP port {address} cannot be opened: {error.strerror}; choose another one (flag --http-port, key "
                "agent.http_port; 0: any free one)",
                address=address,
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Closes the port and what is open on it."""
        if self._server is not None:
            self._server.close()
            for handler in self._handlers:
                handler.cancel()
            await asyncio.gather(*self._handlers, return_exceptions=True)
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            if len(self._handlers) <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_DEADLINE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head.split(b"\r\n", 1)[0].decode("latin-1")))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("http request dropped reason=%r", error)
        finally:
            self._handlers.discard(task)
            writer.close()

    def _answer(self, request_line: str) -> bytes:
        method, _, rest = request_line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            status, kind, body = HTTPStatus.METHOD_NOT_ALLOWED, PLAIN, b"only GET and HEAD\n"
        elif path == "/healthz":
            serving = self._serving()
            status = HTTPStatus.OK if serving else HTTPStatus.SERVICE_UNAVAILABLE
            kind, body = PLAIN, b"serving\n" if serving else b"not serving\n"
        elif path == "/metrics":
            status, kind, body = HTTPStatus.OK, METRICS, self._metrics()
        else:
            status, kind, body = HTTPStatus.NOT_FOUND, PLAIN, b"try /metrics or /healthz\n"
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + (b"" if method == "HEAD" else body)


class MetricsPage:
    """The text for Prometheus, made anew from the agent's numbers at each call."""

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
        agent = {"agent_id": str(numbers["agent_id"])}
        about = GaugeMetricFamily(
            "sabot_agent_info", "The agent and its incarnation.", labels=["agent_id", "incarnation"]
        )
        about.add_metric([agent["agent_id"], str(numbers["incarnation"])], 1)
        yield about
        for name, value in numbers.items():
            if isinstance(value, int | float) and name not in SHOWN_OTHERWISE:
                yield _family(name, value, agent["agent_id"])
        yield from self._slot_families(agent["agent_id"])

    def _slot_families(self, agent_id: str) -> Iterator[Metric]:
        labels = ["agent_id", "slot", "source"]
        morsels = CounterMetricFamily("sabot_slot_morsels", "Morsels run, by slot and source.", labels=labels)
        time = CounterMetricFamily("sabot_slot_busy_seconds", "Time in morsels, by slot.", labels=labels[:2])
        for slot in self._read_slots():
            slot_id = str(slot["slot_id"])
            for source in ("local", "network"):
                morsels.add_metric([agent_id, slot_id, source], slot[f"{source}_morsels"])
            time.add_metric([agent_id, slot_id], slot["total_processing_time_us"] / 1e6)
        yield morsels
        yield time


def _family(name: str, value: float, agent_id: str) -> Metric:
    is_gauge = name in GAUGES or name.removeprefix("shuffle_") in STORED
    kind = GaugeMetricFamily if is_gauge else CounterMetricFamily
    family = kind(f"sabot_{name}", f"{name.replace('_', ' ')} of the agent.", labels=["agent_id"])
    family.add_metric([agent_id], value)
    return family
