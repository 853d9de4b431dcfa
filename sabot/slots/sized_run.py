"""Batches through an operator in morsels whose size is given, or learnt while they run."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import FunctionType
from weakref import WeakKeyDictionary

import pyarrow as pa

from sabot.native._native import MorselRun, Operator, SlotPool
from sabot.slots.job_share import JobShare
from sabot.slots.morsel import MorselBytes, MorselSource, add_slices, batch_bytes, check_batch, check_morsel_bytes
from sabot.slots.morsel_sizer import MorselSizer, share_of_slot
from sabot.slots.operators import FunctionOrExpression

# After so many runs of one morsel per slot the rest of the rows goes out at the size found so far.
ROUNDS_MAX = 4


def sizer_of(operator: Operator) -> MorselSizer:
    """What has been learnt of an operator, kept with it."""
    sizer = operator.sizer
    if sizer is None:
        sizer = operator.sizer = MorselSizer(calls_python=operator.calls_python)
    assert isinstance(sizer, MorselSizer)
    return sizer


class Sizers:
    """What has been learnt of functions that are given again and again; forgotten with them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sizers: WeakKeyDictionary[object, MorselSizer] = WeakKeyDictionary()

    def attach(self, operator: Operator, given: FunctionOrExpression) -> Operator:
        """`operator`, made of `given`, with what is known of it."""
        if not isinstance(given, FunctionType):
            return operator  # it keeps its own operator, or comes anew each time
        with self._lock:
            operator.sizer = self._sizers.setdefault(given, sizer_of(operator))
        return operator


class SizedRun:
    """One call of `operator` on batches: `execute` it once, then read `answers` and the counts.

    With "auto" and an operator that nothing is known of, the first morsels go out in small runs, one morsel per slot,
    until the size is about right; the rest goes out in one run.
    """

    def __init__(self, operator: Operator, morsel_bytes: MorselBytes, source: MorselSource, share: JobShare) -> None:
        self._operator = operator
        self._size = check_morsel_bytes(morsel_bytes)
        self._source = source
        self._share = share
        self.answers: list[pa.RecordBatch | None] = []
        self.morsels = 0
        self.skipped = 0
        self.accepted = False

    def execute(
        self,
        pool: SlotPool,
        batches: Sequence[pa.RecordBatch],
        cancel: threading.Event | None = None,
    ) -> None:
        """Blocks until every morsel has run; raises what the first failed one did."""
        if self._size is not None:
            run = self._new_run()
            for batch in batches:
                add_slices(run, batch, self._size, self._source)
            self._execute(run, pool, cancel)
            return
        sizer = sizer_of(self._operator)
        slots = max(1, pool.num_slots())
        rest = [(batch, batch_bytes(check_batch(batch))) for batch in batches]
        rounds = 0
        while rest or rounds == 0:
            total_bytes = sum(num_bytes for _, num_bytes in rest)
            size = share_of_slot(total_bytes, sizer.morsel_bytes, slots)
            probes = not sizer.settled and rounds < ROUNDS_MAX
            run = self._new_run()
            rest = self._add(run, rest, size, slots * size if probes else None)
            self._execute(run, pool, cancel)
            sizer.observe(run.costs())
            rounds += 1

    def _new_run(self) -> MorselRun:
        run = MorselRun(self._operator)
        run.first_morsel = self.morsels
        return run

    def _add(
        self, run: MorselRun, batches: list[tuple[pa.RecordBatch, int]], size: int, bytes_max: int | None
    ) -> list[tuple[pa.RecordBatch, int]]:
        """Adds about `bytes_max` of the batches, or all; what is left of them."""
        for index, (batch, num_bytes) in enumerate(batches):
            if bytes_max is not None and num_bytes > bytes_max:
                rows = max(1, batch.num_rows * bytes_max // num_bytes)
                add_slices(run, batch.slice(0, rows), size, self._source)
                left = batch.slice(rows)
                return [*([(left, batch_bytes(left))] if left.num_rows else []), *batches[index + 1 :]]
            add_slices(run, batch, size, self._source, num_bytes)
            if bytes_max is not None:
                bytes_max -= num_bytes
                if bytes_max <= 0:
                    return batches[index + 1 :]
        return []

    def _execute(self, run: MorselRun, pool: SlotPool, cancel: threading.Event | None) -> None:
        try:
            run.execute(pool, cancel, self._share.job, self._share.weight)
        finally:
            if run.accepted:
                self.accepted = True
                self.morsels += len(run)
                self.skipped += run.skipped()
        self.answers += run.batches()
