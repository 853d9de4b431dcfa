"""The nursery process: forks worker processes on demand, and ends each of them with all of its process group.

It is executed as a script and is single-threaded for all of its life, so that its forks are safe. It tells who asked
for a worker of its end; who asked ends the worker by closing his socket. It ends with its agent: at end of file of
its control socket, or when the thread that started it dies, whichever comes first.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# As in sabot/native/workers/messages.h.
LIFE = struct.Struct("=Ii")
STARTED, ENDED, NOT_STARTED = 0, 1, 2
# An order for a worker: its memory limit. Descriptors: data, life, output, and where there are modules their archive.
ORDER = struct.Struct("=Q")
GREETING_BYTES_MAX = 128 * 1024

WORKER_NAME = "sabot-worker"
DATA_FD, MODULES_FD = 3, 4

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_END_WAIT_S = 2.0


def in_worker() -> bool:
    """Whether this process is a worker, or was forked from one."""
    return Path("/proc/self/comm").read_text().strip() == WORKER_NAME


def _prctl(option: int, value: int | bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value if isinstance(value, bytes) else ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


@dataclass(slots=True)
class _Child:
    pid: int
    life: socket.socket


class _Nursery:
    """Children by pid, from their fork until they are reaped."""

    def __init__(self, control: socket.socket, serve: Callable[[int, int | None, int], None]) -> None:
        self._control = control
        self._serve = serve
        self._children: dict[int, _Child] = {}
        self._poll = select.poll()
        self._news, signals = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._signals = signals
        self._ending = False
        signal.set_wakeup_fd(signals, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._news, select.POLLIN)

    def _end(self, *_: object) -> None:
        self._ending = True

    def live(self) -> None:
        """Serves until the agent is gone; then ends every worker."""
        while not self._ending:
            for fd, _ in self._poll.poll():
                if fd == self._news:
                    with suppress(BlockingIOError):
                        os.read(self._news, 4096)
                elif fd == self._control.fileno():
                    self._take_order()
                else:
                    self._let_go(fd)
            self._reap()
            if not self._children:
                self._kill_strays()
        for child in self._children.values():
            _kill(child.pid)
        signal.setitimer(signal.ITIMER_REAL, _END_WAIT_S)  # its default action ends us
        while self._children:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            self._reap()
        self._kill_strays()

    def _take_order(self) -> None:
        order, fds, _, _ = socket.recv_fds(self._control, ORDER.size, 8)
        if not order:
            self._ending = True
            return
        if len(fds) < 3:  # we have no descriptors left; whoever asked sees his sockets close
            for fd in fds:
                os.close(fd)
            return
        data, life_fd, output, *modules = fds
        life = socket.socket(fileno=life_fd)
        pid = -1
        try:
            pid = os.fork()
        except OSError as error:
            with suppress(OSError):  # whoever asked is gone
                life.send(LIFE.pack(NOT_STARTED, error.errno or errno.EAGAIN))
            life.close()
        if pid == 0:
            life.detach()  # all but the worker's own are closed at once, below
            self._be_worker(data, output, modules, ORDER.unpack(order)[0])
        for fd in (data, output, *modules):
            os.close(fd)
        if pid > 0:
            self._tell_started(_Child(pid, life))

    def _tell_started(self, child: _Child) -> None:
        self._children[child.pid] = child
        self._poll.register(child.life, select.POLLIN)
        started = LIFE.pack(STARTED, child.pid)
        with suppress(OSError):  # whoever asked is gone: poll says so
            try:
                pidfd = os.pidfd_open(child.pid)
            except OSError:  # no descriptor left: its end is told by us alone
                child.life.send(started)
                return
            try:
                socket.send_fds(child.life, [started], [pidfd])
            finally:
                os.close(pidfd)

    def _be_worker(self, data: int, output: int, modules: list[int], memory_bytes_max: int) -> None:
        """Never returns."""
        try:
            nursery = os.getppid()
            os.setsid()
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != nursery:
                os._exit(1)
            _prctl(_PR_SET_NAME, WORKER_NAME.encode())
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._control.detach()  # the same
            for child in self._children.values():
                child.life.detach()  # the same
            _keep_only(data, output, modules)
            limit_memory(memory_bytes_max)
            self._serve(DATA_FD, MODULES_FD if modules else None, memory_bytes_max)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(70)
        os._exit(0)

    def _let_go(self, fd: int) -> None:
        """Ends the worker whose life socket is readable: its slot has closed it, or never says anything."""
        for child in self._children.values():
            if child.life.fileno() == fd:
                self._poll.unregister(fd)
                _kill(child.pid)
                return

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                child = self._children.pop(ended.si_pid, None)
                if child is not None:
                    _kill(child.pid)  # its group; until it is reaped, its id is no other's
                _, status = os.waitpid(ended.si_pid, 0)
                if child is not None:
                    with suppress(KeyError):
                        self._poll.unregister(child.life)
                    with suppress(OSError):
                        child.life.send(LIFE.pack(ENDED, status))
                    child.life.close()

    def _kill_strays(self) -> None:
        """Ends what workers have left behind in sessions of its own; it became ours when they died."""
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        with suppress(FileNotFoundError):  # a kernel that does not list children
            while strays := children.read_text().split():
                for stray in strays:
                    _kill(int(stray))
                    os.waitpid(int(stray), 0)


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _keep_only(data: int, output: int, modules: list[int]) -> None:
    """Closes every descriptor but the worker's own: /dev/null, its output twice, its data socket, its modules."""
    data, *modules = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in (data, *modules)]
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(data, DATA_FD, inheritable=False)
    for fd in modules:
        os.dup2(fd, MODULES_FD, inheritable=False)
    os.closerange(MODULES_FD + 1 if modules else MODULES_FD, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def limit_memory(bytes_max: int) -> None:
    """Lets this process have `bytes_max` more of private memory than it has now, and leave no core file."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    limit = pages * resource.getpagesize() + bytes_max
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _load_worker() -> Callable[[int, int | None, int], None]:
    """Imports what every worker needs, pyarrow first, without its allocator's thread."""
    environment = os.environ.copy()
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    try:
        from sabot.slots.workers.worker_main import serve
    finally:
        os.environ.clear()
        os.environ.update(environment)
    return serve


def main() -> None:
    """Arguments: the control socket's descriptor, and the process id of the agent."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the agent's
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(sys.argv[2]):
        return
    _prctl(_PR_SET_NAME, b"sabot-nursery")
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    greeting = control.recv(GREETING_BYTES_MAX)
    if not greeting:
        return
    sys.path[:] = json.loads(greeting)
    serve = _load_worker()
    gc.collect()
    gc.freeze()  # so that the workers' collections do not copy what they share
    _Nursery(control, serve).live()


if __name__ == "__main__":
    main()
