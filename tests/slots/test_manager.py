"""What TaskSlotManager promises to its callers: order, counters, errors that stay with their operator."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.errors import UsageError
from sabot.slots import Morsel, MorselResult, MorselSource, TaskSlotManager
from tests.slots.conftest import WAIT_S, Gate, morsels_of


def processed(manager: TaskSlotManager, kind: str = "morsels_processed") -> int:
    return sum(slot[kind] for slot in manager.get_slot_stats())  # type: ignore[literal-required]


def test_results_come_in_the_order_given(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    results = manager.execute_morsels(morsels_of(batch, 999), lambda rows: rows)
    assert [result.morsel_id for result in results] == list(range(51))
    assert pa.Table.from_batches([result.batch for result in results]).equals(pa.Table.from_batches([batch]))
    assert all(0 <= result.slot_id < 3 and result.queue_us >= 0 and result.run_us >= 0 for result in results)


def test_morsel_is_given_to_the_function_without_a_copy(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    [result] = manager.execute_morsels([Morsel(batch, 100, 50)], lambda rows: rows)
    assert result.batch is not None
    assert result.batch.column(0).buffers()[1].address == batch.column(0).buffers()[1].address
    assert result.batch.column(0)[0].as_py() == 100


def test_counters_include_every_morsel_whose_result_was_returned(
    manager: TaskSlotManager, batch: pa.RecordBatch
) -> None:
    for calls in range(1, 50):
        morsels = [Morsel(batch, 0, 5), Morsel(batch, 5, 5, source=MorselSource.NETWORK)]
        results = manager.execute_morsels(morsels, lambda rows: rows)
        assert processed(manager) == 2 * calls
        assert processed(manager, "local_morsels") == processed(manager, "network_morsels") == calls
        assert [result.source for result in results] == [MorselSource.LOCAL, MorselSource.NETWORK]
    assert manager.get_queue_depth() == 0
    assert set(manager.get_slot_stats()[0]) == {
        "slot_id",
        "busy",
        "morsels_processed",
        "local_morsels",
        "network_morsels",
        "stolen_morsels",
        "total_processing_time_us",
        "idle_us",
        "busy_us",
        "gil_wait_us",
    }


def test_none_means_no_rows(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    results = manager.execute_morsels(
        morsels_of(batch, 10_000), lambda rows: rows if rows["a"][0].as_py() >= 20_000 else None
    )
    assert [result.batch is None for result in results] == [True, True, False, False, False]


def test_nothing_to_do_gives_nothing(manager: TaskSlotManager) -> None:
    assert manager.execute_morsels([], lambda rows: rows) == []


def test_morsel_without_rows_is_run(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    [result] = manager.execute_morsels([Morsel(batch, 50_000, 0)], lambda rows: rows)
    assert result.batch is not None
    assert (result.batch.num_rows, result.batch.schema) == (0, batch.schema)


def test_wrong_return_type_names_the_operator(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    def gives_a_table(rows: pa.RecordBatch) -> Any:
        return pa.table({"a": [1]})

    with pytest.raises(TypeError, match=r"gives_a_table must return a pyarrow\.RecordBatch or None, not Table"):
        manager.execute_morsels([Morsel(batch)], gives_a_table)


def test_first_error_is_raised_as_itself_with_its_place(one_slot: TaskSlotManager, batch: pa.RecordBatch) -> None:
    ran = []
    error = ZeroDivisionError("third morsel")

    def fail_at_the_third(rows: pa.RecordBatch) -> pa.RecordBatch:
        ran.append(rows["a"][0].as_py())
        if len(ran) == 3:
            raise error
        return rows

    with pytest.raises(ZeroDivisionError) as caught:
        one_slot.execute_morsels(morsels_of(batch, 1_000), fail_at_the_third)
    assert caught.value is error
    assert error.__notes__ == ["slot=0 morsel=2 partition=2000"]
    assert "fail_at_the_third" in [entry.name for entry in caught.traceback]
    assert ran == [0, 1_000, 2_000]
    assert processed(one_slot) == 3


def test_error_cancels_no_other_callers_morsels(one_slot: TaskSlotManager, batch: pa.RecordBatch, gate: Gate) -> None:
    def fail(rows: pa.RecordBatch) -> pa.RecordBatch:
        raise ValueError("mine alone")

    with ThreadPoolExecutor(2) as callers:
        blocker = one_slot.enqueue_morsel(Morsel(batch), gate.hold)
        assert gate.entered.wait(WAIT_S)
        failing = callers.submit(one_slot.execute_morsels, morsels_of(batch, 5_000), fail)
        working = callers.submit(one_slot.execute_morsels, morsels_of(batch, 5_000), lambda rows: rows)
        gate.open()
        with pytest.raises(ValueError, match="mine alone"):
            failing.result(WAIT_S)
        assert len(working.result(WAIT_S)) == 10
    assert blocker.result(WAIT_S).batch is not None


def test_error_of_an_expression_has_its_place_too(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    with pytest.raises(pa.ArrowInvalid, match="no_such_column") as caught:
        manager.execute_morsels([Morsel(batch, partition_id=7)], pc.field("no_such_column") > 1)
    assert caught.value.__notes__[0].endswith("morsel=0 partition=7")


def test_many_callers_at_once_get_their_own_results(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    def call(caller: int) -> bool:
        expected = pc.add(batch["a"], caller)
        results = manager.execute_morsels(
            morsels_of(batch, 7_000), lambda rows: pa.record_batch([pc.add(rows["a"], caller)], ["a"])
        )
        return bool(
            pa.chunked_array([result.batch["a"] for result in results if result.batch]).equals(
                pa.chunked_array([expected])
            )
        )

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(call, range(40)))


def test_nested_call_runs_in_the_callers_slot(one_slot: TaskSlotManager, batch: pa.RecordBatch) -> None:
    inner: list[MorselResult] = []

    def outer(rows: pa.RecordBatch) -> pa.RecordBatch:
        inner.extend(one_slot.execute_morsels(morsels_of(rows, 10_000), lambda part: part))
        inner.append(one_slot.enqueue_morsel(Morsel(rows), lambda part: None).result(timeout=0))
        return rows

    one_slot.execute_morsels([Morsel(batch)], outer)
    assert [result.slot_id for result in inner] == [0] * 6
    assert processed(one_slot) == 7


def test_thread_locals_of_a_slot_last(one_slot: TaskSlotManager, batch: pa.RecordBatch) -> None:
    local = threading.local()

    def count(rows: pa.RecordBatch) -> pa.RecordBatch:
        local.calls = getattr(local, "calls", 0) + 1
        return pa.record_batch({"calls": [local.calls]})

    results = one_slot.execute_morsels(morsels_of(batch, 10_000), count)
    assert [result.batch["calls"][0].as_py() for result in results if result.batch] == [1, 2, 3, 4, 5]


def test_batch_is_let_go_of_after_the_call(manager: TaskSlotManager) -> None:
    before = pa.total_allocated_bytes()
    numbers = pc.add(pa.array(range(100_000), pa.int64()), 1)
    batch = pa.record_batch({"a": numbers})
    manager.execute_morsels(morsels_of(batch, 1_000), lambda rows: None)
    del batch, numbers
    assert pa.total_allocated_bytes() == before


@pytest.mark.parametrize(
    ("morsel", "says"),
    [
        (Morsel(), "morsel 0 has no batch"),
        (Morsel(pa.table({"a": [1]})), "must be a pyarrow.RecordBatch, not Table"),
        (Morsel(pa.record_batch({"a": [1]}), 0, 2), "wants rows 0 to 2 of a batch of 1"),
        (Morsel(pa.record_batch({"a": [1]}), -1, 1), "wants rows -1 to 0"),
        (Morsel(pa.record_batch({"a": [1]}), 2), "wants rows 2 to 2 of a batch of 1"),
        (Morsel(pa.record_batch({"a": [1]}), 1, 2**63 - 1), "keep start_row and num_rows within it"),
        (Morsel(pa.record_batch({"a": [1]}), 2**70, 1), "must be integers"),
        (Morsel(pa.record_batch({"a": [1]}), "0"), "must be integers"),  # type: ignore[arg-type]
        (Morsel(pa.record_batch({"a": [1]}), source="LOCAL"), "use MorselSource"),  # type: ignore[arg-type]
        (pa.record_batch({"a": [1]}), "give sabot.Morsel objects"),
    ],
)
def test_bad_morsel_is_a_usage_error(manager: TaskSlotManager, morsel: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        manager.execute_morsels([morsel], lambda rows: rows)
    with pytest.raises(UsageError, match=says):
        manager.enqueue_morsel(morsel, lambda rows: rows)
    assert processed(manager) == 0


@pytest.mark.parametrize("operator", [None, 3, "a > 1"])
def test_bad_operator_is_a_usage_error(manager: TaskSlotManager, batch: pa.RecordBatch, operator: Any) -> None:
    with pytest.raises(UsageError, match=r"must be a function, a pyarrow\.compute\.Expression or a Pipeline"):
        manager.execute_morsels([Morsel(batch)], operator)


@pytest.mark.parametrize("count", [-1, 1025, 1.5, "4", None, True])
def test_bad_number_of_slots_is_a_usage_error(count: Any) -> None:
    with pytest.raises(UsageError, match="num_slots is"):
        TaskSlotManager(num_slots=count)
