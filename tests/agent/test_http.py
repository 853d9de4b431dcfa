"""The HTTP port, asked as a browser, a scraper and a nuisance would."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sabot.agent import http
from sabot.agent.http import HttpServer
from sabot.agent.metrics import MetricsPage
from sabot.errors import UsageError


def served(
    ask: Callable[[int], Awaitable[Any]], *, serving: bool = True, metrics: Callable[[], bytes] = lambda: b"m 1\n"
) -> Any:
    """What `ask` gives for the port of a server that is open meanwhile."""

    async def run() -> Any:
        server = HttpServer(metrics=metrics, serving=lambda: serving)
        await server.start("127.0.0.1", 0)
        try:
            return await ask(server.port)
        finally:
            await server.stop()

    return asyncio.run(run())


async def closed(writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionResetError):
        writer.close()
        await writer.wait_closed()


def request(text: str) -> Callable[[int], Awaitable[tuple[str, str]]]:
    """Sends `text` and gives the head and the body of the answer; both are empty where there is none."""

    async def ask(port: int) -> tuple[str, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = b""
        with suppress(ConnectionResetError):  # what the server did not read makes its closing a reset
            writer.write(text.encode())
            await writer.drain()
            answer = await reader.read()
        await closed(writer)
        head, _, body = answer.decode().partition("\r\n\r\n")
        return head, body

    return ask


def get(path: str) -> Callable[[int], Awaitable[tuple[str, str]]]:
    return request(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")


def test_health_of_a_serving_agent_is_200() -> None:
    head, body = served(get("/healthz"))
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert body == "serving\n"


def test_health_of_a_draining_agent_is_503() -> None:
    head, _ = served(get("/healthz"), serving=False)
    assert head.startswith("HTTP/1.1 503 ")


def test_metrics_are_made_anew_for_each_request() -> None:
    pages = iter([b"m 1\n", b"m 2\n"])

    async def ask_twice(port: int) -> list[str]:
        return [(await get("/metrics")(port))[1] for _ in range(2)]

    assert served(ask_twice, metrics=lambda: next(pages)) == ["m 1\n", "m 2\n"]


def test_query_is_no_part_of_the_path() -> None:
    assert served(get("/healthz?x=1"))[0].startswith("HTTP/1.1 200 ")


def test_head_has_the_length_and_no_body() -> None:
    head, body = served(request("HEAD /metrics HTTP/1.1\r\n\r\n"))
    assert "Content-Length: 4" in head
    assert body == ""


def test_unknown_path_says_which_there_are() -> None:
    head, body = served(get("/"))
    assert head.startswith("HTTP/1.1 404 ")
    assert "/metrics" in body


def test_other_methods_are_refused() -> None:
    assert served(request("POST /metrics HTTP/1.1\r\n\r\n"))[0].startswith("HTTP/1.1 405 ")


@pytest.mark.parametrize("text", ["GET /" + "x" * http.REQUEST_BYTES_MAX + "\r\n\r\n", "\r\n\r\n", "\xff\r\n\r\n"])
def test_nonsense_does_not_harm_the_next_request(text: str) -> None:
    async def ask(port: int) -> str:
        await request(text)(port)
        return (await get("/healthz")(port))[1]

    assert served(ask) == "serving\n"


def test_request_that_never_ends_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_DEADLINE_S", 0.05)
    assert served(request("GET /healthz HTTP/1.1\r\n")) == ("", "")


def test_more_connections_than_the_limit_are_dropped_and_the_first_ones_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 1)

    async def ask(port: int) -> tuple[str, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        await writer.drain()
        second = await get("/healthz")(port)
        writer.write(b"\r\n")
        first = (await reader.read()).decode()
        await closed(writer)
        return first.partition("\r\n\r\n")[2], second[1]

    assert served(ask) == ("serving\n", "")


def test_stop_ends_open_connections() -> None:
    async def run() -> bytes:
        server = HttpServer(metrics=bytes, serving=lambda: True)
        await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        await writer.drain()
        await server.stop()
        answer = b""
        with suppress(ConnectionResetError):
            answer = await reader.read()
        await closed(writer)
        return answer

    assert asyncio.run(run()) == b""


def test_port_in_use_names_the_key() -> None:
    async def ask(port: int) -> None:
        with pytest.raises(UsageError, match=rf"127.0.0.1:{port}.*agent.http_port"):
            await HttpServer(metrics=bytes, serving=lambda: True).start("127.0.0.1", port)

    served(ask)


NUMBERS = {
    "agent_id": 'a"b',
    "incarnation": 255,
    "uptime_s": 1.5,
    "resident_bytes": 7,
    "num_slots": 2,
    "available_slots": 1,
    "queue_depth": 3,
    "morsels_processed": 10,
    "shuffle_stored_bytes": 11,
    "shuffle_bytes_received": 12,
}
SLOTS = [
    {
        "slot_id": 0,
        "local_morsels": 4,
        "network_morsels": 5,
        "total_processing_time_us": 2_000_000,
        "gil_wait_us": 500_000,
    },
    {"slot_id": 1, "local_morsels": 1, "network_morsels": 0, "total_processing_time_us": 0, "gil_wait_us": 0},
]


OPERATORS = [
    {
        "operator": "filter",
        "morsels": 6,
        "queue_us": 3_000_000,
        "run_us": 4_000_000,
        "queue_counts": [1, 2, 0, 0, 3],
        "run_counts": [0, 0, 0, 6, 0],
        "bounds_us": (1.0, 2.0, 4.0, 8.0),
    }
]


def test_page_says_each_number_with_its_kind() -> None:
    page = MetricsPage(metrics=lambda: dict(NUMBERS), slots=lambda: SLOTS, operators=lambda: OPERATORS)
    families = list(text_string_to_metric_families(page().decode()))
    kinds = {family.name: family.type for family in families}
    samples = {
        (sample.name, *(value for label, value in sorted(sample.labels.items()) if label != "agent_id")): sample.value
        for family in families
        for sample in family.samples
    }
    assert all(sample.labels["agent_id"] == 'a"b' for family in families for sample in family.samples)
    assert samples == {
        ("sabot_agent_info", "00000000000000ff"): 1,
        ("sabot_uptime_seconds",): 1.5,
        ("sabot_resident_bytes",): 7,
        ("sabot_slots",): 2,
        ("sabot_slots_available",): 1,
        ("sabot_queue_depth",): 3,
        ("sabot_shuffle_stored_bytes",): 11,
        ("sabot_shuffle_bytes_received_total",): 12,
        ("sabot_slot_morsels_total", "0", "local"): 4,
        ("sabot_slot_morsels_total", "0", "network"): 5,
        ("sabot_slot_morsels_total", "1", "local"): 1,
        ("sabot_slot_morsels_total", "1", "network"): 0,
        ("sabot_slot_busy_seconds_total", "0"): 2,
        ("sabot_slot_busy_seconds_total", "1"): 0,
        ("sabot_slot_gil_wait_seconds_total", "0"): 0.5,
        ("sabot_slot_gil_wait_seconds_total", "1"): 0,
        ("sabot_morsel_queue_seconds_bucket", "2e-06", "filter"): 3,
        ("sabot_morsel_queue_seconds_bucket", "8e-06", "filter"): 3,
        ("sabot_morsel_queue_seconds_bucket", "+Inf", "filter"): 6,
        ("sabot_morsel_queue_seconds_count", "filter"): 6,
        ("sabot_morsel_queue_seconds_sum", "filter"): 3,
        ("sabot_morsel_run_seconds_bucket", "2e-06", "filter"): 0,
        ("sabot_morsel_run_seconds_bucket", "8e-06", "filter"): 6,
        ("sabot_morsel_run_seconds_bucket", "+Inf", "filter"): 6,
        ("sabot_morsel_run_seconds_count", "filter"): 6,
        ("sabot_morsel_run_seconds_sum", "filter"): 4,
    }
    assert (kinds["sabot_slots"], kinds["sabot_slot_morsels"]) == ("gauge", "counter")
