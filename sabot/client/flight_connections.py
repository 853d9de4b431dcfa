"""A session's Flight connections: one for each agent that it reads results from, made at the first and kept for the
next. A new one costs as much as reading a small partition.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow.flight as fl

from sabot.client.flight import open_flight_client


class FlightConnections:
    """Lends clients by address to any number of threads, until it is closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[str, fl.FlightClient] = {}  # guarded by _lock

    @contextmanager
    def lend(self, address: str) -> Iterator[fl.FlightClient]:
        """A client for the block. One in whose use anything went wrong is not lent again: it may be what is broken."""
        with self._lock:
            client = self._clients.get(address)
            if client is None:
                client = self._clients[address] = open_flight_client(address)
        try:
            yield client
        except Exception:
            with self._lock:
                if self._clients.get(address) is client:
                    del self._clients[address]
            raise

    def close(self) -> None:
        """Ends the connections, and with them what is being read."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()
