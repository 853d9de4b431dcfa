"""Slots under random histories of calls: every morsel is answered for once, whatever comes and goes meanwhile."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import CancelledError, Future, wait
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sabot.errors import UsageError
from sabot.slots import Morsel, MorselSource, TaskSlotManager
from tests.slots.conftest import WAIT_S

ROWS = pa.record_batch({"a": pa.array(range(64), pa.int64())})
SLOTS_MOST = 6
JOBS = st.sampled_from([None, "a", "b"])
WEIGHTS = st.sampled_from([None, 1, 3.5])
SOURCES = st.sampled_from(list(MorselSource))


class ExpectedError(Exception):
    """What a failing function raises."""


class Call:
    """One call of execute_morsels in a thread of its own, and how often each of its morsels ran."""

    def __init__(self, manager: TaskSlotManager, morsels: int, fail_at: int | None, nest: bool, **how: Any) -> None:
        self.ran = [0] * morsels
        self.nested = 0
        self.fail_at = fail_at
        self._manager = manager
        self._nest = nest
        self._how = how
        self.answer: Any = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        morsels = [Morsel(ROWS, row, 1, partition_id=row) for row in range(len(self.ran))]
        try:
            self.answer = list(self._manager.execute_morsels(morsels, self._morsel, **self._how))
        except (ExpectedError, UsageError) as error:
            self.answer = error

    def _morsel(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        row = rows["a"][0].as_py()
        self.ran[row] += 1
        if self._nest:
            inner = self._manager.execute_morsels([Morsel(ROWS, 0, 1), Morsel(ROWS, 1, 1)], lambda part: part)
            self.nested += len(inner)
        if row == self.fail_at:
            raise ExpectedError(row)
        return rows

    def check(self, *, ended: bool) -> None:
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        assert all(count <= 1 for count in self.ran)
        if isinstance(self.answer, list):
            assert self.ran == [1] * len(self.ran)
            ids = [result.morsel_id for result in self.answer]
            assert (ids if self._how.get("ordered", True) else sorted(ids)) == list(range(len(self.ran)))
            assert all(result.batch["a"][0].as_py() == result.morsel_id for result in self.answer)
            assert not self._nest or self.nested == 2 * len(self.ran)
        elif isinstance(self.answer, ExpectedError):
            assert self.answer.args == (self.fail_at,)
            assert f"partition={self.fail_at}" in self.answer.__notes__[0]
        else:
            assert isinstance(self.answer, UsageError)
            assert ended


class Slots(RuleBasedStateMachine):
    @initialize(count=st.integers(1, 3))
    def start(self, count: int) -> None:
        self.manager = TaskSlotManager(num_slots=count)
        self.count = count
        self.calls: list[Call] = []
        self.futures: list[Future[Any]] = []
        self.ended = False

    @rule(count=st.integers(1, 3))
    @precondition(lambda self: not self.ended)
    def add(self, count: int) -> None:
        if self.count + count <= SLOTS_MOST:
            self.manager.add_slots(count)
            self.count += count

    @rule(count=st.integers(1, 3))
    @precondition(lambda self: not self.ended)
    def remove(self, count: int) -> None:
        try:
            self.manager.remove_slots(count)
        except UsageError:
            assert count >= self.count
        else:
            self.count -= count

    @rule(
        morsels=st.integers(0, 40),
        fail_at=st.none() | st.integers(0, 39),
        nest=st.booleans(),
        ordered=st.booleans(),
        job=JOBS,
        weight=WEIGHTS,
    )
    def execute(  # noqa: PLR0917  # hypothesis passes them by name
        self, morsels: int, fail_at: int | None, nest: bool, ordered: bool, job: str | None, weight: float | None
    ) -> None:
        fail_at = fail_at if fail_at is not None and fail_at < morsels else None
        how = {"ordered": ordered, "job": job, "weight": weight}
        self.calls.append(Call(self.manager, morsels, fail_at, nest, **how))

    @rule(source=SOURCES, job=JOBS, weight=WEIGHTS)
    @precondition(lambda self: not self.ended)
    def enqueue(self, source: MorselSource, job: str | None, weight: float | None) -> None:
        morsel = Morsel(ROWS, source=source)
        self.futures.append(self.manager.enqueue_morsel(morsel, lambda rows: rows, job=job, weight=weight))

    @rule(source=SOURCES)
    @precondition(lambda self: not self.ended)
    def call(self, source: MorselSource) -> None:
        self.futures.append(self.manager.call_in_slot(threading.get_ident, source=source))

    @rule(index=st.integers(0, 1_000))
    @precondition(lambda self: self.futures)
    def cancel(self, index: int) -> None:
        self.futures[index % len(self.futures)].cancel()

    @rule(index=st.integers(0, 1_000))
    @precondition(lambda self: self.calls)
    def wait_for_call(self, index: int) -> None:
        self.calls.pop(index % len(self.calls)).check(ended=self.ended)

    @rule(drain=st.booleans())
    def shutdown(self, drain: bool) -> None:
        self.ended = True
        self.count = 0
        self.manager.shutdown(drain=drain)

    @invariant()
    def slots_are_as_many_as_asked_for(self) -> None:
        if hasattr(self, "manager"):
            assert self.manager.get_num_slots() == self.count
            assert len(self.manager.get_slot_stats()) == self.count

    def teardown(self) -> None:
        if not hasattr(self, "manager"):
            return
        self.manager.shutdown()
        for call in self.calls:
            call.check(ended=True)
        assert not wait(self.futures, timeout=WAIT_S).not_done
        for future in self.futures:
            with contextlib.suppress(CancelledError, UsageError):
                assert future.result() is not None
        assert self.manager.get_queue_depth() == 0


TestSlots = Slots.TestCase
TestSlots.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
