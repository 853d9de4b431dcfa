"""TaskSlotManager: a node's cores as task slots, for morsels of any number of callers at once.

It owns the native slots and ends them: at shutdown, when it is no longer referenced, and at the interpreter's exit.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeVar, overload

import pyarrow as pa

from sabot.errors import LimitReached, UsageError
from sabot.native._native import MorselResult, MorselRun, SlotPool, WorkerPools, run_declaration
from sabot.slots.futures import MorselFuture, call_in_pool
from sabot.slots.job_share import JobShare, JobShares
from sabot.slots.morsel import (
    Morsel,
    MorselBytes,
    MorselSource,
    add_morsel,
)
from sabot.slots.operators import (
    TIMEOUT_S_MAX,
    FunctionOrExpression,
    check_no_timeout,
    native_operator,
    operator_in_processes,
)
from sabot.slots.sized_run import SizedRun, Sizers
from sabot.slots.workers import Nursery, WorkerLimits, WorkerPool
from sabot.slots.workers.pool import Printed, open_failure
from sabot.wire.py_modules import PyModules

if TYPE_CHECKING:
    from pyarrow import acero

    from sabot.native._native import OperatorStats, SlotStats

SLOTS_MAX = 1024
TIMELINE_MORSELS_MAX = 1024 * 1024

# 256 KiB a slot, made when its first morsel has run; at a millisecond a morsel the last four seconds.
TIMELINE_MORSELS = 4096

# What one reading of a timeline gives at most, about 25 MiB.
TIMELINE_ROWS_MAX = 256 * 1024

# How long a shutdown waits for what runs, once it has skipped the rest.
_CANCELLED_WAIT_S = 1.0

T = TypeVar("T")


class TaskSlotManager:
    """`num_slots` native slots, 0 for one per core; every method may be called from any thread.

    `timeline_morsels` is how many of its last morsels each slot keeps for `get_timeline`; 0 turns the timeline off.

    Work started from inside a slot runs in that slot, before the call returns. After `shutdown`, and in a process
    forked from this one, whatever starts work raises UsageError.
    """

    def __init__(self, num_slots: int = 0, *, timeline_morsels: int = TIMELINE_MORSELS) -> None:
        _check_count("num_slots", num_slots, at_least=0)
        _check_count("timeline_morsels", timeline_morsels, at_least=0, at_most=TIMELINE_MORSELS_MAX)
        self._pool = SlotPool(num_slots, timeline_morsels=timeline_morsels)
        self._pid = os.getpid()
        self._enqueued = itertools.count()
        self._sizers = Sizers()
        self._shares = JobShares()
        self._nursery = Nursery()
        self._worker_pools = WorkerPools()
        weakref.finalize(self, _close, self._pool, self._pid, self._nursery, self._worker_pools)

    @property
    def native_pool(self) -> SlotPool:
        """The slots themselves, for native code that submits to them."""
        return self._pool

    def get_num_slots(self) -> int:
        """How many slots there are; 0 after shutdown."""
        return self._pool_here().num_slots()

    def get_available_slots(self) -> int:
        """How many slots run nothing at this moment; it may be stale when it arrives."""
        return self._pool_here().available_slots()

    def get_queue_depth(self) -> int:
        """How many morsels wait for a slot at this moment; it may be stale when it arrives."""
        return self._pool_here().queue_depth()

    def get_slot_stats(self) -> list[SlotStats]:
        """One dict per slot, counted since the slot was added; it includes every morsel whose result was returned.

        `busy_us` includes the morsel that runs, and with `idle_us` makes up the slot's time. `gil_wait_us` is the part
        of it in which calls into Python had not begun, for want of the GIL.

        `stolen_morsels` are those that another slot had been dealt and this one ran, for it was idle.
        """
        return self._pool_here().stats()

    def get_operator_stats(self) -> list[OperatorStats]:
        """One dict per operator, of the 128 used last: how many morsels, and how long they waited and ran.

        `queue_us` and `run_us` are sums. `queue_counts` and `run_counts` count the morsels whose time is below each of
        `bounds_us` and not below the one before; the last count is of those above all bounds.
        """
        return self._pool_here().operator_stats()

    def get_timeline(self, *, morsels_max: int = TIMELINE_ROWS_MAX) -> pa.Table:
        """The last morsels of all slots, by start: slot, job, operator, source, partition, start, end, rows, bytes,
        stolen and gil_wait, the wait until its calls into Python began. Reading holds up no slot.

        An operator or a job that many others have followed, or that has no name, is null; so are partition, rows and
        bytes of a call. A morsel run inside another has a row of its own, within the other's time. Empty when the
        timeline is off.
        """
        return pa.Table.from_batches([self._pool_here().timeline(morsels_max)])

    def job_share(self, job: str | None = None, weight: float | None = None) -> JobShare:
        """The account for work of `job`; a weight without a job makes a job of its own, once per call of this."""
        return self._shares.share(job, weight)

    @overload
    def execute_morsels(
        self,
        morsels: Iterable[Morsel],
        fn_or_expression: FunctionOrExpression,
        *,
        ordered: Literal[True] = True,
        job: str | None = None,
        weight: float | None = None,
        processes: bool = False,
        timeout_s: float | None = None,
    ) -> list[MorselResult]: ...

    @overload
    def execute_morsels(
        self,
        morsels: Iterable[Morsel],
        fn_or_expression: FunctionOrExpression,
        *,
        ordered: Literal[False],
        job: str | None = None,
        weight: float | None = None,
        processes: bool = False,
        timeout_s: float | None = None,
    ) -> Iterator[MorselResult]: ...

    def execute_morsels(
        self,
        morsels: Iterable[Morsel],
        fn_or_expression: FunctionOrExpression,
        *,
        ordered: bool = True,
        job: str | None = None,
        weight: float | None = None,
        processes: bool = False,
        timeout_s: float | None = None,
    ) -> list[MorselResult] | Iterator[MorselResult]:
        """Runs every morsel through the operator and waits; the results are in the order given.

        With `ordered=False` it returns at once, and gives the results as they come; dropping the iterator skips what
        has not started. The first error skips the call's other morsels and is raised as itself, with a note that names
        the slot, morsel and partition. Jobs share the slots' time by weight: see `job_share`. With `processes` a
        function runs in worker processes that end with this call (a MorselOperator keeps its own): TaskFailed where it
        kills its process, LimitReached after `timeout_s` on one morsel.
        """
        share = self._shares.share(job, weight)
        workers = self.worker_pool() if processes else None
        if workers is None:
            check_no_timeout(timeout_s)
            run = MorselRun(native_operator(fn_or_expression))
        else:
            run = MorselRun(operator_in_processes(fn_or_expression, workers, timeout_s))
        for morsel in morsels:
            add_morsel(run, morsel)
        if not ordered:
            run.list_ended()
            run.submit(self._pool_here(), None, share.job, share.weight)
            return _as_they_end(run, workers)
        try:
            run.execute(self._pool_here(), None, share.job, share.weight)
        finally:
            if workers is not None:
                workers.close()
        return run.results()

    def worker_pool(
        self,
        *,
        limits: WorkerLimits | None = None,
        py_modules: PyModules | None = None,
        open_failure: Callable[[bytes], BaseException] = open_failure,
        printed: Printed | None = None,
    ) -> WorkerPool:
        """Worker processes for the functions of one job; they end with it, or with the slots.

        `printed` takes what functions print, after each morsel; without it that goes to this process's standard output.
        """
        self._pool_here()
        pool = WorkerPool(
            self._nursery, limits=limits, py_modules=py_modules, open_failure=open_failure, printed=printed
        )
        self._worker_pools.add(pool.native)
        return pool

    def execute_nursery(self) -> None:
        """Starts the process that will fork the workers, so that it is older than what the slots will hold."""
        self._pool_here()
        self._nursery.execute()

    @property
    def nursery_pid(self) -> int | None:
        """The process that forks the workers, once there is one."""
        return self._nursery.pid

    def enqueue_morsel(
        self,
        morsel: Morsel,
        operator: FunctionOrExpression,
        *,
        job: str | None = None,
        weight: float | None = None,
    ) -> Future[MorselResult]:
        """Queues one morsel; its `morsel_id` counts the morsels that this manager has enqueued."""
        share = self._shares.share(job, weight)
        run = MorselRun(native_operator(operator))
        add_morsel(run, morsel)
        future = MorselFuture(run, next(self._enqueued))
        run.submit(self._pool_here(), future.settle, share.job, share.weight)
        return future

    def call_in_slot(
        self,
        function: Callable[[], T],
        *,
        source: MorselSource = MorselSource.LOCAL,
        job: str | None = None,
        weight: float | None = None,
    ) -> Future[T]:
        """Calls `function()` once in a slot, counted as one morsel."""
        if not callable(function):
            raise UsageError(f"a {type(function).__qualname__} cannot be called in a slot; give a function")
        return call_in_pool(self._pool_here(), function, source, self._shares.share(job, weight))

    def run_operator(
        self,
        batches: Sequence[pa.RecordBatch],
        operator: FunctionOrExpression,
        *,
        morsel_bytes: MorselBytes = "auto",
        source: MorselSource = MorselSource.LOCAL,
        cancel: threading.Event | None = None,
        job: str | None = None,
        weight: float | None = None,
        slots: set[int] | None = None,
    ) -> list[pa.RecordBatch | None]:
        """Runs the batches through the operator, cut into morsels, and waits: one answer per morsel, rows in order.

        When `cancel` is set the morsels that have not started are skipped and JobCancelled is raised. `slots` gets the
        numbers of the slots that ran some.
        """
        share = self._shares.share(job, weight)
        run = SizedRun(self._sizers.attach(native_operator(operator), operator), morsel_bytes, source, share)
        run.execute(self._pool_here(), batches, cancel)
        if slots is not None:
            slots |= run.slots
        return run.answers

    def run_plan(
        self,
        declaration: acero.Declaration,
        *,
        source: MorselSource = MorselSource.LOCAL,
        cancel: threading.Event | None = None,
        job: str | None = None,
        weight: float | None = None,
    ) -> pa.Table:
        """The table that an Acero plan gives, computed as many short tasks, which take turns with other work and are
        counted as morsels. Its rows have no order unless the plan ends with one.

        When `cancel` is set the tasks that have not started are dropped and JobCancelled is raised. From inside a slot
        the plan runs there, in one thread. What every thread gets of a plan is numbered by Acero, for which reason no
        more slots than cores plus eight take part in one, as pyarrow is set up by default.
        """
        share = self._shares.share(job, weight)
        network = source is MorselSource.NETWORK
        return run_declaration(
            declaration, self._pool_here(), cancel, network=network, job=share.job, weight=share.weight
        )

    def add_slots(self, count: int) -> None:
        """Starts `count` more slots; work that waits is theirs at once."""
        _check_count("count", count, at_least=1)
        self._pool_here().add_slots(count)

    def remove_slots(self, count: int) -> None:
        """Ends `count` slots, each after the morsel that it runs. The last slot stays: UsageError."""
        _check_count("count", count, at_least=1)
        self._pool_here().remove_slots(count)

    def shutdown(self, *, drain: bool = True, timeout_s: float | None = None) -> None:
        """Takes no more work and ends the slots, after what is queued, or with `drain=False` after what runs.

        Who waits for a morsel that was skipped gets a UsageError. Repeats do nothing. With `drain=False` workers are
        killed in mid-call. What has not ended after `timeout_s` seconds is treated as with `drain=False`; LimitReached,
        here and for who waits for it, where a function in a slot's own thread runs on for a second more: nothing can
        stop it, and its slot ends when it returns.
        """
        pool = self._pool_here()
        if timeout_s is not None and not 0 <= timeout_s <= TIMEOUT_S_MAX:
            raise UsageError(f"timeout_s is {timeout_s!r}; give seconds from 0 to {TIMEOUT_S_MAX:,}, or None")
        if not drain and not pool.on_slot_thread():
            self._worker_pools.close()
        ended = pool.shutdown(drain, timeout_s)
        self._worker_pools.close()
        if not ended:
            ended = pool.shutdown(False, _CANCELLED_WAIT_S)
        self._nursery.close()
        if not ended:
            pool.give_up()
            raise LimitReached(
                f"the slots were not shut down in timeout_s={timeout_s:g} seconds and {_CANCELLED_WAIT_S:g} more: "
                f"{self._pool.num_slots() - self._pool.available_slots()} still run a morsel and end when it does; "
                "processes=True runs functions where they can be stopped"
            )

    def __enter__(self) -> TaskSlotManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown(drain=kind is None)

    def _pool_here(self) -> SlotPool:
        if os.getpid() != self._pid:
            raise UsageError(
                "this process was forked from the one that made the slots and has none of them; "
                "make a TaskSlotManager of its own, or start processes by spawn"
            )
        return self._pool


def _as_they_end(run: MorselRun, workers: WorkerPool | None) -> Iterator[MorselResult]:
    try:
        while (morsel_id := run.next_ended()) is not None:
            yield run.result(morsel_id, morsel_id)
        run.raise_failure()
    finally:
        if workers is not None:
            workers.close()


def _check_count(name: str, value: int, *, at_least: int, at_most: int = SLOTS_MAX) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= at_most:
        raise UsageError(f"{name} is {value!r}; give an integer from {at_least} to {at_most}")


def _close(pool: SlotPool, pid: int, nursery: Nursery, worker_pools: WorkerPools) -> None:
    if os.getpid() != pid:
        return  # the slots are the parent's

    def shut_down() -> None:
        worker_pools.close()
        pool.shutdown(False)
        nursery.close()

    if pool.on_slot_thread():
        # A slot dropped the manager's last reference. It cannot wait for itself, but a thread can, and exit waits for
        # that thread.
        threading.Thread(target=shut_down, name="sabot-close").start()
    else:
        shut_down()
