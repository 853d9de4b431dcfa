"""How a task's thread gets its CPU work done: in slots, one call or many morsels at a time, until its job is cancelled.

The thread itself only waits. A wait ends at once when the work is done, and soon after a cancel; what a slot has begun
it runs to its end, unwatched.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from sabot.agent.tasks.slot_use import SlotUse
from sabot.agent.tasks.source_gate import SourceGate
from sabot.errors import JobCancelled
from sabot.slots import MorselSource, TaskSlotManager
from sabot.slots.morsel import MorselBytes
from sabot.slots.operators import Pipeline

if TYPE_CHECKING:
    from pyarrow import acero

_CANCEL_SEEN_S = 0.1
_WHOLE = 1 << 62  # bytes of a morsel that no batch has

T = TypeVar("T")


class SlotCalls:
    """The slots as one task sees them. `cancelled` is looked at before each call and while waiting for it."""

    def __init__(
        self,
        manager: TaskSlotManager,
        cancelled: threading.Event,
        *,
        morsel_bytes: MorselBytes,
        job_id: str,
        weight: float = 1.0,
        gate: SourceGate | None = None,
    ) -> None:
        self._manager = manager
        self._cancelled = cancelled
        self._morsel_bytes = morsel_bytes
        self._job_id = job_id
        self._weight = weight
        self._gate = gate
        self.used = SlotUse()

    @property
    def job_id(self) -> str:
        """The job on whose account the calls run."""
        return self._job_id

    def check_cancelled(self) -> None:
        """JobCancelled where the job has ended meanwhile."""
        if self._cancelled.is_set():
            raise JobCancelled(f"job {self._job_id} was cancelled", job=self._job_id)

    def wait_for_memory(self, timeout_s: float) -> None:
        """Before a source is read on: returns when the agent has memory for that; LimitReached at the deadline."""
        if self._gate is not None:
            self._gate.wait(self, check=self.check_cancelled, timeout_s=timeout_s)

    def close(self) -> None:
        """The task reads no more."""
        if self._gate is not None:
            self._gate.leave(self)

    def call(self, function: Callable[[], T], *, source: MorselSource = MorselSource.LOCAL) -> T:
        """What `function` gives, run in a slot; its exception is raised as it is."""
        self.check_cancelled()
        future = self._manager.call_in_slot(
            self.used.noted(function), source=source, job=self._job_id, weight=self._weight
        )
        try:
            return self._wait(future)
        finally:
            future.cancel()

    def call_to_end(self, function: Callable[[], T]) -> T:
        """As `call`, for what must not be left alone in its slot: a cancel is seen only before it starts and after."""
        self.check_cancelled()
        return self._manager.call_in_slot(self.used.noted(function), job=self._job_id, weight=self._weight).result()

    def call_ahead(
        self, functions: Iterable[Callable[[], T]], *, source: MorselSource = MorselSource.LOCAL
    ) -> Iterator[T]:
        """What each function gives, in order; while one answer is used, the next is already made."""
        ahead: deque[concurrent.futures.Future[T]] = deque()
        try:
            for function in functions:
                self.check_cancelled()
                ahead.append(
                    self._manager.call_in_slot(
                        self.used.noted(function), source=source, job=self._job_id, weight=self._weight
                    )
                )
                if len(ahead) > 1:
                    yield self._wait(ahead.popleft())
            while ahead:
                yield self._wait(ahead.popleft())
        finally:
            for future in ahead:
                future.cancel()

    def run_morsels(
        self, batches: Sequence[pa.RecordBatch], pipeline: Pipeline, *, source: MorselSource, whole: bool = False
    ) -> list[pa.RecordBatch]:
        """The batches through `pipeline`, morsel by morsel, in order; what gives nothing is left out. `whole`: each
        batch is one morsel.
        """
        self.check_cancelled()
        batches = [batch for batch in batches if batch.num_rows]
        slots: set[int] = set()
        answers = self._manager.run_operator(
            batches,
            pipeline,
            morsel_bytes=_WHOLE if whole else self._morsel_bytes,
            source=source,
            cancel=self._cancelled,
            job=self._job_id,
            weight=self._weight,
            slots=slots,
        )
        self.used.add(slots)
        return [answer for answer in answers if answer is not None and answer.num_rows]

    def run_plan(self, declaration: acero.Declaration, *, source: MorselSource) -> pa.Table:
        """The plan's table: from the task's thread by all slots, from inside a `call` by that slot."""
        self.check_cancelled()
        if not self._manager.native_pool.on_slot_thread():
            self.used.add(range(self._manager.get_num_slots()))
        return self._manager.run_plan(
            declaration, source=source, cancel=self._cancelled, job=self._job_id, weight=self._weight
        )

    def _wait(self, future: concurrent.futures.Future[T]) -> T:
        while not future.done():
            self.check_cancelled()
            concurrent.futures.wait([future], timeout=_CANCEL_SEEN_S)
        return future.result()
