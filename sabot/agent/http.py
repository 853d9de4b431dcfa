"""The HTTP port: /metrics for Prometheus and /healthz for whoever asks, on the daemon's loop, GET and HEAD only.

Numbers are read when they are asked for, so an agent that nobody scrapes spends nothing on them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus

from sabot.errors import UsageError
from sabot.wire.addresses import format_address

REQUEST_BYTES_MAX = 8 * 1024
REQUEST_DEADLINE_S = 5.0
CONNECTIONS_MAX = 32
PLAIN = "text/plain; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger("sabot.agent")


class HttpServer:
    """Serves `metrics()` and whether the agent is `serving()`; open from `start` to `stop`."""

    def __init__(self, *, metrics: Callable[[], bytes], serving: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._serving = serving
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
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
            for writer in self._open.values():
                writer.transport.abort()
            await asyncio.gather(*self._open)
            await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            if len(self._open) <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_DEADLINE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head.split(b"\r\n", 1)[0].decode("latin-1")))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("http request dropped reason=%r", error)
        finally:
            del self._open[task]
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
