"""morsel_bytes="auto": what the controller makes of costs, and that runs follow it; a given size is kept exactly."""

from __future__ import annotations

import os
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.errors import TaskFailed
from sabot.slots import MorselExecutor, MorselOperator, Pipeline, TaskSlotManager
from sabot.slots.morsel_sizer import (
    FIRST_MORSEL_BYTES,
    MORSEL_BYTES_MAX,
    MORSEL_BYTES_MIN,
    NATIVE_TARGET_US,
    PYTHON_TARGET_US,
    MorselCost,
    MorselSizer,
    share_of_slot,
)
from sabot.slots.operators import FunctionOrExpression
from sabot.slots.sized_run import NAMES_MAX, Sizers, sizer_of

KiB = 1024


def keep(rows: pa.RecordBatch) -> pa.RecordBatch:
    return rows


def settle(sizer: MorselSizer, cost_us: Callable[[int], float], runs: int = 8) -> int:
    """Lets the sizer see runs of four morsels, each of which takes `cost_us` of its size; the size in the end."""
    for _ in range(runs):
        size = sizer.morsel_bytes
        sizer.observe([MorselCost(size, int(cost_us(size)), 0)] * 4)
    return sizer.morsel_bytes


@pytest.mark.parametrize("ns_per_byte", [0.1, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("calls_python", [False, True])
def test_size_comes_to_the_time_that_a_morsel_should_take(ns_per_byte: float, calls_python: bool) -> None:
    target_us = PYTHON_TARGET_US if calls_python else NATIVE_TARGET_US
    size = settle(MorselSizer(calls_python=calls_python), lambda size: size * ns_per_byte / 1000)
    wanted = min(target_us * 1000 / ns_per_byte, MORSEL_BYTES_MAX)
    assert wanted * 0.95 <= size <= wanted * 1.05


def test_operator_that_costs_the_same_for_any_size_gets_the_largest() -> None:
    assert settle(MorselSizer(calls_python=True), lambda size: 20.0) == MORSEL_BYTES_MAX


def settle_with_tail(sizer: MorselSizer, cost_us: Callable[[int], float], runs: int = 10) -> int:
    """As `settle`, in runs that end in smaller morsels where the sizer asks for them."""
    for _ in range(runs):
        sizes = [sizer.morsel_bytes] * 8 + [sizer.tail_bytes] * 8
        sizer.observe([MorselCost(size, int(cost_us(size)), 0) for size in sizes])
    return sizer.morsel_bytes


@pytest.mark.parametrize("calls_python", [False, True])
@pytest.mark.parametrize("fixed_us", [20.0, 900.0, 6_000.0, 50_000.0])
def test_operator_with_the_same_cost_for_any_size_is_never_given_small_morsels(
    fixed_us: float, calls_python: bool
) -> None:
    assert settle_with_tail(MorselSizer(calls_python=calls_python), lambda size: fixed_us) == MORSEL_BYTES_MAX


@pytest.mark.parametrize("ns_per_byte", [0.2, 2.0, 20.0])
@pytest.mark.parametrize("fixed_us", [5.0, 100.0, 800.0])
def test_what_each_morsel_costs_is_a_small_part_of_it(fixed_us: float, ns_per_byte: float) -> None:
    size = settle_with_tail(MorselSizer(calls_python=False), lambda size: fixed_us + size * ns_per_byte / 1000)
    rows_us = size * ns_per_byte / 1000
    assert size == MORSEL_BYTES_MAX or fixed_us + rows_us >= 0.9 * NATIVE_TARGET_US
    assert size == MORSEL_BYTES_MAX or fixed_us <= 0.06 * (fixed_us + rows_us)
    assert rows_us <= 1.1 * max(NATIVE_TARGET_US, 19 * fixed_us)


def test_first_morsels_that_pay_for_more_are_forgotten() -> None:
    sizer = MorselSizer(calls_python=False)
    sizer.observe([MorselCost(256 * KiB, 2_050, 0)] * 2 + [MorselCost(64 * KiB, 2_013, 0)] * 4)
    size = settle_with_tail(sizer, lambda size: size / 5_000)
    assert 4_500_000 < size < 5_500_000


def test_tail_is_cut_smaller_where_that_costs_little() -> None:
    sizer = MorselSizer(calls_python=False)
    assert settle_with_tail(sizer, lambda size: 5 + size / 5_000) == pytest.approx(4 * sizer.tail_bytes, abs=4)


@pytest.mark.parametrize("fixed_us", [20.0, 300.0])
def test_tail_is_not_cut_smaller_where_every_morsel_costs_much(fixed_us: float) -> None:
    sizer = MorselSizer(calls_python=False)
    assert settle_with_tail(sizer, lambda size: fixed_us) == sizer.tail_bytes


def test_very_slow_operator_gets_the_smallest() -> None:
    assert settle(MorselSizer(calls_python=False), lambda size: size * 1.0) == MORSEL_BYTES_MIN


def test_size_is_found_in_three_runs() -> None:
    sizer = MorselSizer(calls_python=False)
    size = settle(sizer, lambda size: 5 + size / 5_000, runs=3)
    assert sizer.settled
    assert 4_500_000 < size < 5_500_000


def test_python_gets_larger_morsels_than_native_work() -> None:
    sizes = [settle(MorselSizer(calls_python=python), lambda size: size / 1_000) for python in (False, True)]
    assert sizes[1] > 2 * sizes[0]


def test_wait_for_the_gil_is_no_cost_of_the_size() -> None:
    sizer = MorselSizer(calls_python=True)
    for _ in range(4):
        sizer.observe([MorselCost(sizer.morsel_bytes, 50_000 + sizer.morsel_bytes // 1_000, 50_000)] * 2)
    assert sizer.morsel_bytes > 3_500_000


def test_one_disturbed_morsel_changes_nothing() -> None:
    sizer = MorselSizer(calls_python=False)
    size = settle(sizer, lambda size: size / 1_000)
    sizer.observe([MorselCost(size, size // 1_000, 0)] * 4 + [MorselCost(size, 1_000_000, 0)])
    assert size * 0.98 <= sizer.morsel_bytes <= size * 1.02


def test_too_few_rows_for_the_size_do_not_make_it_smaller() -> None:
    sizer = MorselSizer(calls_python=False)
    size = settle(sizer, lambda size: size / 5_000)
    sizer.observe([MorselCost(1_000, 100, 0)])
    assert sizer.morsel_bytes == size


def test_operator_that_turns_slow_is_noticed() -> None:
    sizer = MorselSizer(calls_python=False)
    before = settle(sizer, lambda size: size / 5_000)
    assert settle(sizer, lambda size: size / 100, runs=4) < before / 40


def test_nothing_observed_is_nothing_learnt() -> None:
    sizer = MorselSizer(calls_python=False)
    sizer.observe([])
    sizer.observe([MorselCost(0, 5, 0)])
    assert (sizer.morsel_bytes, sizer.settled) == (FIRST_MORSEL_BYTES, False)


@pytest.mark.parametrize(
    ("total", "size", "slots", "share"), [(100, 10, 2, 10), (100, 80, 2, 50), (101, 80, 2, 51), (0, 80, 2, 1)]
)
def test_rows_are_shared_between_all_slots(total: int, size: int, slots: int, share: int) -> None:
    assert share_of_slot(total, size, slots) == share


@pytest.mark.parametrize("rows", [1, 999, 50_000])
def test_auto_gives_the_same_rows_in_order(manager: TaskSlotManager, rows: int) -> None:
    batches = [
        pa.record_batch({"a": pa.array(range(start, start + rows), pa.int64())}) for start in (0, rows, 2 * rows)
    ]
    answers = manager.run_operator(batches, keep)
    assert pa.Table.from_batches([one for one in answers if one is not None])["a"].to_pylist() == list(range(3 * rows))


def test_auto_learns_while_a_call_runs(one_slot: TaskSlotManager) -> None:
    batch = pa.record_batch({"a": pa.array(range(4_000_000), pa.int64())})
    one_slot.run_operator([batch], keep, morsel_bytes="auto")
    sizes = one_slot.get_timeline()["bytes"].to_pylist()
    assert sizes[0] == FIRST_MORSEL_BYTES
    assert max(sizes) > 4 * FIRST_MORSEL_BYTES
    assert sum(sizes) == batch.nbytes


def test_operators_of_one_name_learn_from_each_other_until_many_others_came() -> None:
    sizers = Sizers()

    def sizer_named(name: str) -> MorselSizer:
        operator = Pipeline([("call", keep)]).native_operator
        sizers.attach_named(operator, name)
        return sizer_of(operator)

    first = sizer_named("a")
    assert sizer_named("a") is first
    assert sizer_named("b") is not first
    for number in range(NAMES_MAX - 1):
        sizer_named(f"other {number}")
    assert sizer_named("a") is not first


def test_last_rows_of_an_auto_call_are_in_smaller_morsels(one_slot: TaskSlotManager) -> None:
    batch = pa.record_batch({"a": pa.array(range(8_000_000), pa.int64())})
    sizer = MorselSizer(calls_python=False)
    size = settle_with_tail(sizer, lambda size: size / 5_000)
    operator = Pipeline([("filter", pc.field("a") >= 0)])
    operator.native_operator.sizer = sizer
    answers = MorselOperator(operator, manager=one_slot).process([batch])
    assert [answer.num_rows for answer in answers] == [8_000_000]
    seen = one_slot.get_timeline()["bytes"].to_pylist()
    assert sum(seen) == batch.nbytes
    assert sum(seen[-5:]) <= size * 5 / 4
    assert max(seen[-4:]) < size / 3
    assert min(seen[:5]) > size / 2


@pytest.mark.parametrize("operator", [keep, Pipeline([("call", keep)])], ids=["function", "pipeline"])
def test_auto_remembers_an_operator(one_slot: TaskSlotManager, operator: FunctionOrExpression) -> None:
    batch = pa.record_batch({"a": pa.array(range(4_000_000), pa.int64())})
    one_slot.run_operator([batch], operator)
    first = len(one_slot.get_timeline())
    one_slot.run_operator([batch], operator)
    assert len(one_slot.get_timeline()) - first < first


@pytest.mark.parametrize("morsel_bytes", [16 * KiB, 100_000, 2**30])
def test_given_size_is_kept_exactly(one_slot: TaskSlotManager, morsel_bytes: int) -> None:
    batch = pa.record_batch({"a": pa.array(range(100_000), pa.int64())})
    for _ in range(3):
        answers = one_slot.run_operator([batch], keep, morsel_bytes=morsel_bytes)
        rows = [one.num_rows for one in answers if one is not None]
        assert rows[0] == min(morsel_bytes // 8, 100_000)
        assert len(set(rows[:-1])) <= 1


def test_given_size_is_kept_exactly_in_a_stream(one_slot: TaskSlotManager) -> None:
    batch = pa.record_batch({"a": pa.array(range(100_000), pa.int64())})
    operator = MorselOperator(keep, manager=one_slot, morsel_bytes=100_000)
    assert sum(answer.num_rows for answer in operator.process([batch] * 3)) == 300_000
    assert one_slot.get_timeline()["rows"].to_pylist() == [12_500] * 24


def test_auto_of_a_batch_without_rows_sees_its_schema(manager: TaskSlotManager) -> None:
    empty = pa.record_batch({"a": pa.array([], pa.int64())})
    [answer] = manager.run_operator([empty], keep)
    assert answer is not None
    assert answer.schema == empty.schema
    assert manager.run_operator([], keep) == []


def test_failure_in_a_worker_names_the_morsel_of_the_call(one_slot: TaskSlotManager) -> None:
    batch = pa.record_batch({"a": pa.array(range(1_000_000), pa.int64())})

    def die_at_the_end(rows: pa.RecordBatch) -> pa.RecordBatch:
        if rows["a"][-1].as_py() == 999_999:
            os._exit(3)
        return rows

    workers = one_slot.worker_pool()
    with pytest.raises(TaskFailed, match="exit code 3") as caught:
        one_slot.run_operator([batch], Pipeline([("worker", die_at_the_end, None)], workers=workers))
    workers.close()
    morsels = len(one_slot.get_timeline())
    assert morsels > 1
    assert caught.value.facts["morsel"] == morsels - 1
    assert f"morsel={morsels - 1} " in caught.value.__notes__[0]


def test_error_in_a_later_run_names_the_morsel_of_the_call(one_slot: TaskSlotManager) -> None:
    batch = pa.record_batch({"a": pa.array(range(1_000_000), pa.int64())})

    def fail_at_the_end(rows: pa.RecordBatch) -> pa.RecordBatch:
        if rows["a"][-1].as_py() == 999_999:
            raise ValueError("the last row")
        return rows

    with pytest.raises(ValueError, match="the last row") as caught:
        one_slot.run_operator([batch], fail_at_the_end)
    morsels = len(one_slot.get_timeline())
    assert morsels > 1
    assert f"morsel={morsels - 1} " in caught.value.__notes__[0]


def test_executor_counts_every_morsel_of_an_auto_call() -> None:
    batch = pa.record_batch({"a": pa.array(range(1_000_000), pa.int64())})
    with MorselExecutor(num_threads=1) as executor:
        answers = executor.execute_local(batch, "auto", keep)
        stats = executor.get_stats()
    assert stats["total_morsels_created"] == stats["total_morsels_processed"] == len(answers) > 1
    assert stats["total_batches_executed"] == 1


def test_stream_learns_from_batch_to_batch(one_slot: TaskSlotManager) -> None:
    batch = pa.record_batch({"a": pa.array(range(1_000_000), pa.int64())})
    operator = MorselOperator(keep, manager=one_slot, morsel_bytes="auto")
    assert [answer.num_rows for answer in operator.process([batch] * 4)] == [1_000_000] * 4
    sizes = one_slot.get_timeline()["bytes"].to_pylist()
    assert sizes[-1] > sizes[0]
