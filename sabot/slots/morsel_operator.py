"""MorselOperator: one function or expression over batches and streams, morsel by morsel, rows in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from sabot.errors import UsageError
from sabot.native._native import MorselRun, Operator
from sabot.slots.manager import TaskSlotManager
from sabot.slots.morsel import MorselBytes, MorselSource, add_slices, batch_bytes, check_batch, check_morsel_bytes
from sabot.slots.operators import FunctionOrExpression, check_no_timeout, native_operator, operator_in_processes
from sabot.slots.sized_run import SizedRun, add_all, sizer_of
from sabot.slots.workers import WorkerPool

# How many morsels per slot a stream is ahead of its reader: one running, one ready.
AHEAD_PER_SLOT = 2


class MorselOperator:
    """Runs `fn_or_expression` in the manager's slots on morsels of `morsel_bytes`; "auto" learns from each batch how
    large the next ones should be, so that one takes about a millisecond, and some where Python is called.

    With `processes` a function runs in worker processes of its own, one for each slot, that live as long as this object
    and the slots; `timeout_s` then bounds its time on one morsel. With a `weight` and no `job` it is a job of its own.
    """

    def __init__(
        self,
        fn_or_expression: FunctionOrExpression,
        *,
        manager: TaskSlotManager,
        morsel_bytes: MorselBytes = "auto",
        processes: bool = False,
        timeout_s: float | None = None,
        job: str | None = None,
        weight: float | None = None,
    ) -> None:
        if not isinstance(manager, TaskSlotManager):
            raise UsageError(f"manager is a {type(manager).__qualname__}; give a TaskSlotManager")
        self._workers = manager.worker_pool() if processes else None
        if self._workers is not None:
            self._native_operator = operator_in_processes(fn_or_expression, self._workers, timeout_s)
        else:
            check_no_timeout(timeout_s)
            self._native_operator = native_operator(fn_or_expression)
        self._manager = manager
        check_morsel_bytes(morsel_bytes)
        self._morsel_bytes = morsel_bytes
        self._share = manager.job_share(job, weight)

    @property
    def workers(self) -> WorkerPool | None:
        """Its worker processes, with `processes`."""
        return self._workers

    @property
    def native_operator(self) -> Operator:
        return self._native_operator

    def process_batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch's rows after the operator, in order. Where it gave None for every morsel: no rows, of the batch's
        own schema, since no other is known.
        """
        run = SizedRun(self._native_operator, self._morsel_bytes, MorselSource.LOCAL, self._share)
        run.execute(self._manager.native_pool, [batch])
        answer = self._joined(run.answers)
        return batch.slice(0, 0) if answer is None else answer

    def process(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One answer per batch, in order, made while the reader works on earlier ones; a batch for which the operator
        gave only None has no answer. Two morsels per slot, or one whole batch if that is more, are under way or ready.
        """
        ahead: deque[MorselRun] = deque()
        morsels = 0
        try:
            for batch in batches:
                run = self._start(batch)
                ahead.append(run)
                morsels += len(run)
                while ahead and morsels >= AHEAD_PER_SLOT * max(1, self._manager.get_num_slots()):
                    first = ahead.popleft()
                    morsels -= len(first)
                    answer = self._finish(first)
                    if answer is not None:
                        yield answer
            while ahead:
                answer = self._finish(ahead.popleft())
                if answer is not None:
                    yield answer
        finally:
            for run in ahead:
                run.cancel()

    def _start(self, batch: pa.RecordBatch) -> MorselRun:
        run = MorselRun(self._native_operator)
        pool = self._manager.native_pool
        if self._morsel_bytes == "auto":
            sized = [(batch, batch_bytes(check_batch(batch)))]
            add_all(run, sized, sizer_of(self._native_operator), max(1, pool.num_slots()), MorselSource.LOCAL)
        else:
            add_slices(run, batch, self._morsel_bytes, MorselSource.LOCAL)
        run.submit(pool, None, self._share.job, self._share.weight)
        return run

    def _finish(self, run: MorselRun) -> pa.RecordBatch | None:
        run.wait()
        run.raise_failure()
        if self._morsel_bytes == "auto":
            sizer_of(self._native_operator).observe(run.costs())
        return self._joined(run.batches())

    def _joined(self, given: Sequence[pa.RecordBatch | None]) -> pa.RecordBatch | None:
        answers = [answer for answer in given if answer is not None]
        if len(answers) <= 1:
            return answers[0] if answers else None
        if any(not answer.schema.equals(answers[0].schema) for answer in answers):
            raise TypeError(
                f"the operator {self._native_operator.name} returned batches of different schemas for morsels of one "
                "batch; return the same columns and types for every morsel"
            )
        return pa.concat_batches(answers)
