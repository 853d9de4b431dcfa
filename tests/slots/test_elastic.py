"""Slots that come and go, futures, cancels and shutdown: every caller gets an answer."""

from __future__ import annotations

import gc
import random
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from typing import Any

import pyarrow as pa
import pytest

from sabot.errors import JobCancelled, LimitReached, UsageError
from sabot.slots import Morsel, MorselSource, TaskSlotManager
from tests.slots.conftest import WAIT_S, Gate, morsels_of


def test_future_gives_the_result(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    futures = [manager.enqueue_morsel(Morsel(batch, row, 1), lambda rows: rows) for row in range(20)]
    results = [future.result(WAIT_S) for future in futures]
    assert [result.batch["a"][0].as_py() for result in results if result.batch] == list(range(20))
    assert [result.morsel_id for result in results] == list(range(20))


def test_future_gives_the_functions_own_error(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    error = KeyError("mine")

    def fail(rows: pa.RecordBatch) -> pa.RecordBatch:
        raise error

    assert manager.enqueue_morsel(Morsel(batch), fail).exception(WAIT_S) is error


def test_cancelled_future_does_not_run(one_slot: TaskSlotManager, batch: pa.RecordBatch, gate: Gate) -> None:
    ran = threading.Event()
    blocker = one_slot.call_in_slot(gate.hold)
    assert gate.entered.wait(WAIT_S)
    waiting = one_slot.enqueue_morsel(Morsel(batch), lambda rows: ran.set())
    assert one_slot.get_queue_depth() == 1
    assert one_slot.get_available_slots() == 0
    assert waiting.cancel()
    assert one_slot.get_queue_depth() == 0
    called = one_slot.call_in_slot(ran.set)
    assert called.cancel()
    gate.open()
    blocker.result(WAIT_S)
    with pytest.raises(CancelledError):
        waiting.result(WAIT_S)
    with pytest.raises(CancelledError):
        called.result(WAIT_S)
    one_slot.shutdown()
    assert not ran.is_set()


def test_started_future_cannot_be_cancelled(one_slot: TaskSlotManager, batch: pa.RecordBatch, gate: Gate) -> None:
    future = one_slot.enqueue_morsel(Morsel(batch), gate.hold)
    assert gate.entered.wait(WAIT_S)
    assert not future.cancel()
    gate.open()
    assert future.result(WAIT_S).batch is not None


def test_call_in_slot_runs_once_in_a_slot_as_one_morsel(manager: TaskSlotManager) -> None:
    future = manager.call_in_slot(threading.get_ident, source=MorselSource.NETWORK)
    assert future.result(WAIT_S) != threading.get_ident()
    assert sum(slot["network_morsels"] for slot in manager.get_slot_stats()) == 1


def test_call_in_slot_raises_the_functions_own_error(manager: TaskSlotManager) -> None:
    error = OSError("mine")

    def fail() -> None:
        raise error

    assert manager.call_in_slot(fail).exception(WAIT_S) is error
    assert error.__notes__[0].startswith("slot=")
    with pytest.raises(UsageError, match="give a function"):
        manager.call_in_slot(3)  # type: ignore[arg-type]


def test_set_cancel_skips_what_has_not_started(one_slot: TaskSlotManager, batch: pa.RecordBatch) -> None:
    cancel = threading.Event()
    ran: list[int] = []

    def cancel_at_the_second(rows: pa.RecordBatch) -> pa.RecordBatch:
        ran.append(rows.num_rows)
        if len(ran) == 2:
            cancel.set()
            assert seen.wait(WAIT_S)
        return rows

    class Watched:
        def is_set(self) -> bool:
            if cancel.is_set():
                threading.Timer(0.05, seen.set).start()
            return cancel.is_set()

    seen = threading.Event()
    with pytest.raises(JobCancelled, match="were cancelled before they ran"):
        one_slot.run_operator([batch], cancel_at_the_second, morsel_bytes=16_000, cancel=Watched())  # type: ignore[arg-type]
    assert len(ran) == 2


def test_run_operator_gives_one_answer_per_morsel_in_order(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    answers = manager.run_operator([batch, batch.slice(0, 10)], lambda rows: rows, morsel_bytes=64 * 1024)
    assert len(answers) == 14
    whole = pa.Table.from_batches([batch, batch.slice(0, 10)])
    assert pa.Table.from_batches([answer for answer in answers if answer is not None]).equals(whole)


def test_slots_are_added_and_removed_while_work_runs(
    manager: TaskSlotManager, batch: pa.RecordBatch, rng: random.Random
) -> None:
    done = threading.Event()

    def resize() -> None:
        while not done.is_set():
            if rng.random() < 0.5 and manager.get_num_slots() > 1:
                manager.remove_slots(1)
            elif manager.get_num_slots() < 6:
                manager.add_slots(rng.randint(1, 2))

    with ThreadPoolExecutor(1) as resizer:
        resizing = resizer.submit(resize)
        try:
            for _ in range(100):
                results = manager.execute_morsels(morsels_of(batch, 1_000), lambda rows: rows)
                firsts = [result.batch["a"][0].as_py() for result in results if result.batch]
                assert firsts == list(range(0, 50_000, 1_000))
        finally:
            done.set()
        resizing.result(WAIT_S)


def test_last_slot_cannot_be_removed(manager: TaskSlotManager) -> None:
    with pytest.raises(UsageError, match="at least one slot must stay"):
        manager.remove_slots(3)
    manager.remove_slots(2)
    assert manager.get_num_slots() == 1
    with pytest.raises(UsageError, match="at least one slot must stay"):
        manager.remove_slots(1)
    manager.add_slots(2)
    assert [slot["slot_id"] for slot in manager.get_slot_stats()] == [0, 1, 2]


@pytest.mark.parametrize("count", [0, -1, 1025, 1.0, "1"])
def test_bad_change_of_slots_is_a_usage_error(manager: TaskSlotManager, count: Any) -> None:
    with pytest.raises(UsageError, match="count is"):
        manager.add_slots(count)
    with pytest.raises(UsageError, match="count is"):
        manager.remove_slots(count)


def test_slot_cannot_wait_for_its_own_end(manager: TaskSlotManager) -> None:
    for wait_for_me in (manager.shutdown, lambda: manager.remove_slots(1)):
        assert isinstance(manager.call_in_slot(wait_for_me).exception(WAIT_S), UsageError)


def test_shutdown_drains_and_is_the_end(batch: pa.RecordBatch) -> None:
    manager = TaskSlotManager(num_slots=1)
    futures = [manager.enqueue_morsel(Morsel(batch), lambda rows: rows) for _ in range(50)]
    manager.shutdown()
    assert all(future.done() and future.exception() is None for future in futures)
    manager.shutdown()
    assert manager.get_num_slots() == 0
    for use in (
        lambda: manager.execute_morsels([Morsel(batch)], lambda rows: rows),
        lambda: manager.enqueue_morsel(Morsel(batch), lambda rows: rows),
        lambda: manager.call_in_slot(int),
        lambda: manager.add_slots(1),
    ):
        with pytest.raises(UsageError, match="shut down; make a new TaskSlotManager"):
            use()


def test_shutdown_without_drain_answers_everybody(batch: pa.RecordBatch, gate: Gate) -> None:
    manager = TaskSlotManager(num_slots=1)
    blocker = manager.call_in_slot(gate.hold)
    assert gate.entered.wait(WAIT_S)
    waiting = manager.enqueue_morsel(Morsel(batch), lambda rows: rows)
    called = manager.call_in_slot(int)
    with ThreadPoolExecutor(2) as others:
        caller = others.submit(manager.execute_morsels, morsels_of(batch, 10_000), lambda rows: rows)
        while manager.get_queue_depth() < 7:
            pass
        closing = others.submit(manager.shutdown, drain=False)
        for future in (waiting, called, caller):  # none of them waits for the morsel that runs
            with pytest.raises(UsageError, match="shut down before"):
                future.result(WAIT_S)
        gate.open()
        closing.result(WAIT_S)
    assert blocker.done()


def test_shutdown_with_a_deadline_skips_what_waits_then(batch: pa.RecordBatch, gate: Gate) -> None:
    manager = TaskSlotManager(num_slots=1)
    blocker = manager.call_in_slot(gate.hold)
    waiting = manager.enqueue_morsel(Morsel(batch), lambda rows: rows)
    assert gate.entered.wait(WAIT_S)
    waiting.add_done_callback(lambda _: gate.open())
    manager.shutdown(timeout_s=0.05)
    with pytest.raises(UsageError, match="shut down before"):
        waiting.result(WAIT_S)
    assert blocker.done()


def test_shutdown_with_a_deadline_drains_until_then(batch: pa.RecordBatch) -> None:
    manager = TaskSlotManager(num_slots=2)
    futures = [manager.enqueue_morsel(Morsel(batch), lambda rows: rows) for _ in range(200)]
    manager.shutdown(timeout_s=WAIT_S)
    assert all(future.done() and future.exception() is None for future in futures)


def test_function_that_never_ends_holds_up_neither_shutdown_nor_who_waits_for_it(
    batch: pa.RecordBatch, gate: Gate
) -> None:
    manager = TaskSlotManager(num_slots=2)
    with ThreadPoolExecutor(2) as others:
        caller = others.submit(manager.execute_morsels, [Morsel(batch)], gate.hold)
        reader = others.submit(lambda: list(manager.execute_morsels([Morsel(batch)], gate.hold, ordered=False)))
        while manager.get_available_slots() or not gate.entered.is_set():
            pass
        with pytest.raises(LimitReached, match="2 still run a morsel"):
            manager.shutdown(timeout_s=0)
        for waiting in (caller, reader):
            with pytest.raises(LimitReached, match="ran on beyond it"):
                waiting.result(WAIT_S)
    gate.open()
    manager.shutdown()
    assert manager.get_num_slots() == 0


def test_worker_that_never_ends_is_killed_at_the_shutdowns_deadline(batch: pa.RecordBatch) -> None:
    manager = TaskSlotManager(num_slots=1)
    with ThreadPoolExecutor(1) as others:
        caller = others.submit(
            manager.execute_morsels, [Morsel(batch)], lambda rows: threading.Event().wait(), processes=True
        )
        while manager.get_available_slots():
            pass
        manager.shutdown(timeout_s=0.05)
        with pytest.raises(JobCancelled):
            caller.result(WAIT_S)


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), 1e12])
def test_bad_deadline_of_a_shutdown_is_a_usage_error(manager: TaskSlotManager, timeout_s: float) -> None:
    with pytest.raises(UsageError, match="timeout_s is"):
        manager.shutdown(timeout_s=timeout_s)
    assert manager.call_in_slot(int).result(WAIT_S) == 0


def test_slot_may_drop_the_last_reference_to_its_manager(batch: pa.RecordBatch, gate: Gate) -> None:
    def hold_the_manager(manager: TaskSlotManager) -> Any:
        return lambda: (gate.hold(), manager.get_num_slots())[1]

    manager = TaskSlotManager(num_slots=2)
    future = manager.call_in_slot(hold_the_manager(manager))
    assert gate.entered.wait(WAIT_S)
    del manager
    gate.open()
    assert future.result(WAIT_S) == 2
    gc.collect()  # that the slots end is what the fixture for left-over threads checks


def test_slots_that_logged_leave_no_thread_behind() -> None:
    before = set(threading.enumerate())
    with TaskSlotManager(num_slots=2) as manager:
        name = manager.call_in_slot(lambda: threading.current_thread().name).result(WAIT_S)
        assert name not in {thread.name for thread in before}
    assert set(threading.enumerate()) == before


def test_cancelled_call_that_a_shutdown_skips_is_done_for_who_waits(one_slot: TaskSlotManager, gate: Gate) -> None:
    one_slot.call_in_slot(gate.hold)
    assert gate.entered.wait(WAIT_S)
    call = one_slot.call_in_slot(int)
    assert call.cancel()
    ending = threading.Thread(target=one_slot.shutdown, kwargs={"drain": False})
    ending.start()
    try:
        assert wait([call], WAIT_S).not_done == set()
    finally:
        gate.open()
        ending.join()
