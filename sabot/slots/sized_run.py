"""Batches through an operator in morsels whose size is given, or learnt while they run."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from types import FunctionType
from weakref import WeakKeyDictionary

import pyarrow as pa

from sabot.native._native import MorselRun, Operator, SlotPool
from sabot.slots.job_share import JobShare
from sabot.slots.morsel import MorselBytes, MorselSource, add_slices, batch_bytes, check_batch, check_morsel_bytes
from sabot.slots.morsel_sizer import MorselSizer, share_of_slot
from sabot.slots.operators import FunctionOrExpression

# Batches, each with its bytes.
SizedBatches = list[tuple[pa.RecordBatch, int]]

# After so many runs of a morsel per slot the rest of the rows goes out at the size found so far.
ROUNDS_MAX = 4

NAMES_MAX = 1024


def sizer_of(operator: Operator) -> MorselSizer:
    """What has been learnt of an operator, kept with it."""
    sizer = operator.sizer
    if sizer is None:
        sizer = operator.sizer = MorselSizer(calls_python=operator.calls_python)
    assert isinstance(sizer, MorselSizer)
    return sizer


class Sizers:
    """What has been learnt of functions that are given again and again, forgotten with them; and by name, of the
    NAMES_MAX names used last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sizers: WeakKeyDictionary[object, MorselSizer] = WeakKeyDictionary()
        self._named: OrderedDict[str, MorselSizer] = OrderedDict()

    def attach(self, operator: Operator, given: FunctionOrExpression) -> Operator:
        """`operator`, made of `given`, with what is known of it."""
        if not isinstance(given, FunctionType):
            return operator  # it keeps its own operator, or comes anew each time
        with self._lock:
            operator.sizer = self._sizers.setdefault(given, sizer_of(operator))
        return operator

    def attach_named(self, operator: Operator, name: str) -> None:
        """Gives `operator` what is known of those that had this name before it: they do the same."""
        with self._lock:
            operator.sizer = self._named.setdefault(name, sizer_of(operator))
            self._named.move_to_end(name)
            if len(self._named) > NAMES_MAX:
                self._named.popitem(last=False)


def add_probe(
    run: MorselRun, batches: SizedBatches, sizer: MorselSizer, num_slots: int, source: MorselSource
) -> SizedBatches:
    """Adds one morsel for each slot, and half as many bytes in smaller ones where that tells more; what is left."""
    size = share_of_slot(_total(batches), sizer.morsel_bytes, num_slots)
    rest = _add_bytes(run, batches, size, num_slots * size, source)
    if rest and sizer.tail_bytes < size:
        rest = _add_bytes(run, rest, sizer.tail_bytes, num_slots * size // 2, source)
    return rest


def add_all(run: MorselRun, batches: SizedBatches, sizer: MorselSizer, num_slots: int, source: MorselSource) -> None:
    """Adds all batches, the last rows in smaller morsels where that lets the slots end together."""
    total = _total(batches)
    size = share_of_slot(total, sizer.morsel_bytes, num_slots)
    tail = min(num_slots * size, total // 2)
    if sizer.tail_bytes < size and tail > 0:
        batches = _add_bytes(run, batches, size, total - tail, source)
        size = sizer.tail_bytes
    _add_bytes(run, batches, size, None, source)


def _total(batches: SizedBatches) -> int:
    return sum(num_bytes for _, num_bytes in batches)


def _add_bytes(
    run: MorselRun, batches: SizedBatches, size: int, bytes_max: int | None, source: MorselSource
) -> SizedBatches:
    """Adds about `bytes_max` of the batches, or all, in morsels of about `size` that are alike; what is left."""
    for index, (batch, num_bytes) in enumerate(batches):
        if bytes_max is not None and num_bytes > bytes_max:
            rows = max(1, batch.num_rows * bytes_max // num_bytes)
            _add_alike(run, batch.slice(0, rows), bytes_max, size, source)
            left = batch.slice(rows)
            return [*([(left, batch_bytes(left))] if left.num_rows else []), *batches[index + 1 :]]
        _add_alike(run, batch, num_bytes, size, source)
        if bytes_max is not None:
            bytes_max -= num_bytes
            if bytes_max <= 0:
                return batches[index + 1 :]
    return []


def _add_alike(run: MorselRun, batch: pa.RecordBatch, num_bytes: int, size: int, source: MorselSource) -> None:
    morsels = max(1, -(-num_bytes // size))
    run.add_slices(batch, max(1, -(-batch.num_rows // morsels)), 0, source is MorselSource.NETWORK)


class SizedRun:
    """One call of `operator` on batches: `execute` it once, then read `answers` and the counts.

    With "auto" and an operator that nothing is known of, the first morsels go out in small runs, one morsel per slot,
    until the size is about right; the rest goes out in one run, its last rows in smaller ones.
    """

    def __init__(self, operator: Operator, morsel_bytes: MorselBytes, source: MorselSource, share: JobShare) -> None:
        self._operator = operator
        self._size = check_morsel_bytes(morsel_bytes)
        self._source = source
        self._share = share
        self.answers: list[pa.RecordBatch | None] = []
        self.slots: set[int] = set()  # that ran morsels of it
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
            run = self._new_run()
            if not sizer.settled and rounds < ROUNDS_MAX:
                rest = add_probe(run, rest, sizer, slots, self._source)
            else:
                add_all(run, rest, sizer, slots, self._source)
                rest = []
            self._execute(run, pool, cancel)
            sizer.observe(run.costs())
            rounds += 1

    def _new_run(self) -> MorselRun:
        run = MorselRun(self._operator)
        run.first_morsel = self.morsels
        return run

    def _execute(self, run: MorselRun, pool: SlotPool, cancel: threading.Event | None) -> None:
        try:
            run.execute(pool, cancel, self._share.job, self._share.weight)
        finally:
            if run.accepted:
                self.accepted = True
                self.morsels += len(run)
                self.skipped += run.skipped()
        for result in run.results():
            self.answers.append(result.batch)
            self.slots.add(result.slot_id)
