"""MorselExecutor: slots of one's own, for code that has batches and no agent."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TypedDict

import pyarrow as pa

from sabot.slots.manager import TaskSlotManager
from sabot.slots.morsel import MorselBytes, MorselSource
from sabot.slots.operators import FunctionOrExpression, native_operator
from sabot.slots.sized_run import SizedRun, Sizers


class ExecutorStats(TypedDict):
    """`total_morsels_processed` leaves out what was skipped after an error."""

    total_morsels_created: int
    total_morsels_processed: int
    total_batches_executed: int


class MorselExecutor:
    """`num_threads` slots, 0 for one per core, that end with it."""

    def __init__(self, num_threads: int = 0) -> None:
        self._manager = TaskSlotManager(num_threads)
        self._sizers = Sizers()
        self._lock = threading.Lock()
        self._stats = ExecutorStats(total_morsels_created=0, total_morsels_processed=0, total_batches_executed=0)

    @property
    def num_threads(self) -> int:
        """How many slots there are; 0 after shutdown."""
        return self._manager.get_num_slots()

    def execute_local(
        self, batch: pa.RecordBatch, morsel_bytes: MorselBytes, fn: FunctionOrExpression
    ) -> list[pa.RecordBatch]:
        """The answers for the batch's morsels, in order; a morsel for which `fn` gave None has none."""
        run = SizedRun(
            self._sizers.attach(native_operator(fn), fn), morsel_bytes, MorselSource.LOCAL, self._manager.job_share()
        )
        try:
            run.execute(self._manager.native_pool, [batch])
        finally:
            if run.accepted:
                self._count(run)
        return [answer for answer in run.answers if answer is not None]

    def _count(self, run: SizedRun) -> None:
        with self._lock:
            self._stats["total_morsels_created"] += run.morsels
            self._stats["total_morsels_processed"] += run.morsels - run.skipped
            self._stats["total_batches_executed"] += 1

    def get_stats(self) -> ExecutorStats:
        """Counts since it was made."""
        with self._lock:
            return self._stats.copy()

    def shutdown(self) -> None:
        """Ends the slots after what is queued. Repeats do nothing."""
        self._manager.shutdown()

    def __enter__(self) -> MorselExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
