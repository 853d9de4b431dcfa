"""The agent's hold on its nursery process: started at the first need, started again should it die, ended with it.

The process is executed, not forked, by a thread of its own that lives as long: what ends a process with its parent
follows the thread that made it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sabot.errors import InternalError, UsageError
from sabot.slots.workers import nursery_main

_ORDER_WAIT_S = 60.0
_END_WAIT_S = 5.0


class SealedArchive:
    """The modules of a job in memory that nobody can change; there as long as anybody may order a worker with it."""

    def __init__(self, content: bytes) -> None:
        self.fd = os.memfd_create("sabot-modules", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        weakref.finalize(self, os.close, self.fd)
        with os.fdopen(os.dup(self.fd), "wb") as file:
            file.write(content)
        fcntl.fcntl(
            self.fd,
            fcntl.F_ADD_SEALS,
            fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOrder:
    """What a worker is to be given: its memory limit and its modules."""

    memory_bytes_max: int
    modules: SealedArchive | None = None


class Nursery:
    """Makes worker processes; safe from many threads. Its process is small until it is warmed up, or not there yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The nursery's process id, while there is one."""
        process = self._process
        return None if process is None else process.pid

    def execute(self) -> None:
        """Starts the process, without what workers need; returns at once."""
        with self._lock:
            self._process_here()

    def warm_up(self) -> None:
        """Has the process import what workers need, which takes it a moment; returns at once."""
        self._warm()

    def start_worker(self, order: WorkerOrder) -> tuple[int, int, int]:
        """Asks for a worker; the caller's descriptors (data, life, output), each for him to close.

        Does not wait for the worker: the data socket takes calls at once, and the life socket tells what becomes of it.
        """
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        output, output_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(output_end, True)
        theirs = [pairs[0][1].fileno(), pairs[1][1].fileno(), output_end]
        if order.modules is not None:
            theirs.append(order.modules.fd)
        try:
            self._send(nursery_main.ORDER.pack(order.memory_bytes_max), theirs)
        except BaseException:
            os.close(output)
            for ours, _ in pairs:
                ours.close()
            raise
        finally:
            os.close(output_end)
            for _, end in pairs:
                end.close()
        return pairs[0][0].detach(), pairs[1][0].detach(), output

    def close(self) -> None:
        """Ends the nursery and with it every worker; returns when it is gone. Repeats do nothing."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            process.end()

    def _send(self, order: bytes, fds: list[int]) -> None:
        process = self._warm()
        try:
            process.send(order, fds)
        except (OSError, InternalError):  # it has died, or was never there
            self._forget(process)
            process = self._warm()
            try:
                process.send(order, fds)
            except InternalError:
                self._forget(process)
                raise

    def _warm(self) -> _Process:
        with self._lock:
            process = self._process_here()
            with suppress(OSError):  # it has died, as whoever sends an order will see
                process.greet()
            return process

    def _process_here(self) -> _Process:
        if self._closed:
            raise UsageError("the slots were shut down: there are no workers any more")
        if self._process is None:
            self._process = _Process()
        return self._process

    def _forget(self, process: _Process) -> None:
        with self._lock:
            if self._process is process:
                self._process = None
        process.end()


class _Process:
    """One nursery process and the thread that is its parent."""

    def __init__(self) -> None:
        if not sys.executable:
            raise UsageError("sys.executable is empty: without it no worker processes can be started")
        self._control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_ORDER_WAIT_S)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, nursery_main.GREETING_BYTES_MAX * 2)
        self._greeted = False
        self._executed = threading.Event()
        self._ending = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._live, name="sabot-nursery", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        self._executed.wait(_ORDER_WAIT_S)
        return None if self._process is None else self._process.pid

    def greet(self) -> None:
        """Tells it once where modules are; it then imports what workers need."""
        if not self._greeted:
            self._greeted = True
            self._control.send(json.dumps([path for path in sys.path if isinstance(path, str)]).encode())

    def send(self, order: bytes, fds: list[int]) -> None:
        self._executed.wait(_ORDER_WAIT_S)
        if self._process is None:
            raise InternalError("the nursery process was not started; its error is in the log above")
        socket.send_fds(self._control, [order], fds)

    def end(self) -> None:
        self._ending.set()
        self._thread.join()

    def _live(self) -> None:
        command = [sys.executable, "-P", str(Path(nursery_main.__file__)), str(self._theirs.fileno()), str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[self._theirs.fileno()],
            )
        except BaseException:
            self._control.close()
            raise
        finally:
            self._theirs.close()
            self._executed.set()
        self._ending.wait()
        self._control.close()
        try:
            self._process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
