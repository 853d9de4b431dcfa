"""A TCP proxy between two agents that misbehaves on demand: cuts, stalls, strands, flips bits, goes half open."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from types import TracebackType

PIECE_BYTES = 64 * 1024


class FaultyProxy:
    """Forwards connections to `target`, "host:port", from a free port of `host`; port 0 stands for the same one."""

    def __init__(self, target: str, host: str = "127.0.0.1") -> None:
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        self.address = f"{host}:{self.port}"
        target_host, port = target.rsplit(":", 1)
        self._target = (target_host, int(port) or self.port)
        self.connections = 0
        self.bytes_to_target = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()  # guarded by _lock, as the next
        self._stranded: set[socket.socket] = set()
        self._cut_after: list[int] = []  # for the next connections, the bytes after which each is cut
        self._flips: list[int] = []  # bytes to the target, of all connections, of which a bit is flipped
        self._flows = threading.Event()
        self._flows.set()
        self._bytes_per_s: int | None = None
        self._refuses = False
        self._swallows = False
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="proxy-accept", daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """Resets every connection that is open."""
        with self._lock:
            ends = list(self._open)
        for end in ends:
            _reset(end)

    def cut_after(self, *bytes_each: int) -> None:
        """Cuts the next connections, each after so many bytes to the target."""
        with self._lock:
            self._cut_after.extend(bytes_each)

    def slow_down(self, bytes_per_s: int) -> None:
        """Lets no more than that through to the target on each connection."""
        self._bytes_per_s = bytes_per_s

    def flip(self, *at: int) -> None:
        """Flips a bit of these bytes, counted over all that goes to the target."""
        self._flips.extend(at)

    def refuse(self) -> None:
        """Cuts everything, and every connection that comes."""
        self._refuses = True
        self.cut()

    def allow(self) -> None:
        """The end of `refuse`."""
        self._refuses = False

    def stall(self) -> None:
        """Lets nothing through any more: connections stay open and hear nothing."""
        self._flows.clear()

    def strand(self) -> None:
        """Lets nothing more through on connections that are open, and serves new ones: as where packets were dropped
        for so long that the old ones hardly try any more.
        """
        with self._lock:
            self._stranded |= self._open

    def swallow_answers(self, swallow: bool = True) -> None:
        """Whether what the target says gets lost, while it still hears everything."""
        self._swallows = swallow

    def flow(self) -> None:
        """The end of `stall`."""
        self._flows.set()

    def close(self) -> None:
        """Ends every connection and thread."""
        self._ended.set()
        self._flows.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses or self._ended.is_set():
                _reset(near)
                near.close()
                continue
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self.connections += 1
                self._open |= {near, far}
                cut_after = self._cut_after.pop(0) if self._cut_after else None
            thread = threading.Thread(target=self._serve, args=(near, far, cut_after), name="proxy", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, near: socket.socket, far: socket.socket, cut_after: int | None) -> None:
        with near, far, suppress(OSError):
            self._forward(near, far, cut_after)
        with self._lock:
            self._open -= {near, far}
            self._stranded -= {near, far}

    def _forward(self, near: socket.socket, far: socket.socket, cut_after: int | None) -> None:
        left = cut_after
        while True:
            for source in select.select([near, far], [], [])[0]:
                piece = source.recv(PIECE_BYTES)
                self._flows.wait()
                if self._bytes_per_s is not None and source is near:
                    self._ended.wait(len(piece) / self._bytes_per_s)
                if not piece:
                    return
                if source in self._stranded:
                    continue
                if source is far:
                    near.sendall(b"" if self._swallows else piece)
                    continue
                far.sendall(self._spoilt(piece)[:left])
                if left is not None:
                    left -= len(piece)
                    if left <= 0:
                        return

    def _spoilt(self, piece: bytes) -> bytes:
        with self._lock:
            start = self.bytes_to_target
            self.bytes_to_target += len(piece)
            here = [at - start for at in self._flips if start <= at < start + len(piece)]
        spoilt = bytearray(piece)
        for at in here:
            spoilt[at] ^= 0x10
        return bytes(spoilt)

    def __enter__(self) -> FaultyProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
