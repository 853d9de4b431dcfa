"""The worker processes of one job: at most one for each slot, made at first use and ended with the job.

Its functions reach each worker once; what they print is handed on after each morsel, bounded.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sabot.errors import TaskFailed
from sabot.native._native import NativeWorkerPool, WorkerFunction
from sabot.slots.workers.nursery import Nursery, SealedArchive, WorkerOrder
from sabot.wire.agent_pb2 import Failure
from sabot.wire.failure import from_failure
from sabot.wire.packed_function import PackedFunction
from sabot.wire.py_modules import PyModules

log = logging.getLogger("sabot.slots.workers")


# Takes what a function printed: its name, the morsel, the text, and how many bytes more were printed and not kept.
Printed = Callable[[str, int, str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """What bounds a worker. `memory_bytes_max` is also the most that its answer for one morsel may measure."""

    memory_bytes_max: int = 4 * 1024**3
    output_bytes_max: int = 64 * 1024
    start_timeout_s: float = 60.0


def open_failure(packed: bytes) -> BaseException:
    """The exception that a worker sent; whoever opens it trusts the worker's function."""
    try:
        return from_failure(Failure.FromString(packed))
    except Exception as error:
        return TaskFailed(f"the function failed, and what its worker sent of it cannot be read: {error}")


class WorkerPool:
    """Workers for a job's functions. Ended by `close`, and when neither it nor an operator needs it any more."""

    def __init__(
        self,
        nursery: Nursery,
        *,
        limits: WorkerLimits | None = None,
        py_modules: PyModules | None = None,
        open_failure: Callable[[bytes], BaseException] = open_failure,
        printed: Printed | None = None,
    ) -> None:
        limits = limits or WorkerLimits()
        nursery.warm_up()
        modules = None if py_modules is None else SealedArchive(py_modules.archive)
        self._functions: dict[bytes, WorkerFunction] = {}
        self._lock = threading.Lock()
        order = WorkerOrder(memory_bytes_max=limits.memory_bytes_max, modules=modules)
        self._native = NativeWorkerPool(
            start=partial(nursery.start_worker, order),
            printed=printed or print_here,
            open_failure=open_failure,
            start_timeout_s=limits.start_timeout_s,
            output_bytes_max=limits.output_bytes_max,
            result_bytes_max=limits.memory_bytes_max,
        )

    @property
    def native(self) -> NativeWorkerPool:
        """The workers themselves, for native code that calls them."""
        return self._native

    def function(self, packed: PackedFunction) -> WorkerFunction:
        """The function as the workers know it: equal bytes are one function."""
        with self._lock:
            known = self._functions.get(packed.pickled)
            if known is None:
                known = self._functions[packed.pickled] = WorkerFunction(packed.name, packed.pickled)
            return known

    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return self._native.pids()

    def close(self) -> None:
        """Kills every worker, in mid-call too: calls end as JobCancelled. Repeats do nothing."""
        self._native.close()


def print_here(function: str, morsel: int, text: str, bytes_cut: int) -> None:
    """Hands on what a function printed to this process's standard output."""
    sys.stdout.write(text + _cut_note(bytes_cut))
    sys.stdout.flush()


def log_printed(job: str) -> Printed:
    """Hands on what a function printed to the log, with the job and the morsel."""

    def hand_on(function: str, morsel: int, text: str, bytes_cut: int) -> None:
        text = text.rstrip("\n") + _cut_note(bytes_cut).rstrip("\n")
        log.info("printed job=%s function=%s morsel=%d\n%s", job, function, morsel, text)

    return hand_on


def _cut_note(bytes_cut: int) -> str:
    return f"\n[{bytes_cut:,} more bytes were printed and are not kept]\n" if bytes_cut else ""
