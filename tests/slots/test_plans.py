"""Acero plans in the slots: answers, sharing, cancel, errors, and slots that come, go and end in mid-plan."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import acero

from sabot.errors import JobCancelled, UsageError
from sabot.native._native import run_declaration
from sabot.slots import Morsel, MorselSource, TaskSlotManager
from tests.slots.conftest import WAIT_S, Gate

ROWS = 300_000
LEFT = pa.table({"k": pa.array(range(ROWS)), "a": pa.array(range(ROWS))})
RIGHT = pa.table({"k": pa.array(range(0, ROWS, 3)), "b": pa.array(range(0, ROWS, 3))})


class WatchedCancel(threading.Event):
    """Says by `looked` that it was looked at, and by `obeyed` that it was looked at again after it was seen set."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = threading.Event()
        self.obeyed = threading.Event()
        self._seen = False

    def is_set(self) -> bool:
        self.looked.set()
        if self._seen:
            self.obeyed.set()
        self._seen = super().is_set()
        return self._seen


class HeldFunction:
    """A function for plans that stops in its first call until the test lets it go."""

    name = "sabot_test_hold"

    def __init__(self) -> None:
        self.act: Callable[[], object] = lambda: None

    def __call__(self, context: Any, values: pa.Array) -> pa.Array:
        self.act()
        return values


HELD = HeldFunction()
pc.register_scalar_function(
    HELD, HELD.name, {"summary": "holds", "description": "for tests"}, {"x": pa.int64()}, pa.int64()
)


@pytest.fixture
def held(gate: Gate) -> Iterator[Gate]:
    HELD.act = gate.hold
    yield gate
    gate.open()
    HELD.act = lambda: None


def source(table: pa.Table) -> acero.Declaration:
    return acero.Declaration("table_source", acero.TableSourceNodeOptions(table))


def join() -> acero.Declaration:
    options = acero.HashJoinNodeOptions("inner", ["k"], ["k"], ["k", "a"], ["b"])
    return acero.Declaration("hashjoin", options, [source(LEFT), source(RIGHT)])


def count_by_parity() -> acero.Declaration:
    parity = acero.ProjectNodeOptions([pc.bit_wise_and(pc.field("k"), 1)], ["parity"])
    count = acero.AggregateNodeOptions([([], "hash_count_all", None, "rows")], keys=["parity"])
    nodes = [source(LEFT), acero.Declaration("project", parity), acero.Declaration("aggregate", count)]
    return acero.Declaration.from_sequence(nodes)


def through(expression: pc.Expression, table: pa.Table = LEFT) -> acero.Declaration:
    project = acero.Declaration("project", acero.ProjectNodeOptions([expression], ["x"]))
    return acero.Declaration.from_sequence([source(table), project])


def held_plan(table: pa.Table = LEFT) -> acero.Declaration:
    """A task per chunk of the table."""
    return through(pc.Expression._call(HELD.name, [pc.field("k")]), table)


def check_joined(table: pa.Table) -> None:
    ordered = table.sort_by("k")
    assert ordered["k"].equals(RIGHT["k"])
    assert ordered["a"].to_pylist() == ordered["b"].to_pylist() == RIGHT["b"].to_pylist()


def processed(manager: TaskSlotManager) -> int:
    return sum(slot["morsels_processed"] for slot in manager.get_slot_stats())


def until_closed(manager: TaskSlotManager) -> None:
    with pytest.raises(UsageError, match="shut down"):
        while True:
            manager.call_in_slot(threading.Event().is_set)


@pytest.fixture
def beside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(12) as threads:
        yield threads


@pytest.mark.parametrize("slots", [1, 2, 7])
def test_a_plan_answers_as_in_one_thread(slots: int) -> None:
    with TaskSlotManager(slots) as manager:
        check_joined(manager.run_plan(join()))
        counted = manager.run_plan(count_by_parity())
        assert sorted(counted["rows"].to_pylist()) == [ROWS // 2, ROWS // 2]


def test_a_plan_is_many_tasks_counted_by_their_source(manager: TaskSlotManager) -> None:
    manager.run_plan(join(), source=MorselSource.NETWORK)
    assert sum(slot["network_morsels"] for slot in manager.get_slot_stats()) > 10
    assert sum(slot["local_morsels"] for slot in manager.get_slot_stats()) == 0


def test_the_timeline_names_the_tasks_of_a_plan_by_job_and_last_node(manager: TaskSlotManager) -> None:
    manager.run_plan(join(), job="j")
    timeline = manager.get_timeline()
    assert timeline.num_rows > 10
    assert set(timeline["job"].to_pylist()) == {"j"}
    assert set(timeline["operator"].to_pylist()) == {"hashjoin"}
    [operator] = manager.get_operator_stats()
    assert operator["morsels"] == timeline.num_rows


def test_an_order_by_keeps_its_order(manager: TaskSlotManager) -> None:
    order = acero.Declaration("order_by", acero.OrderByNodeOptions([("k", "descending")]))
    answer = manager.run_plan(acero.Declaration.from_sequence([source(LEFT), order]))
    assert answer["k"].to_pylist() == list(range(ROWS - 1, -1, -1))


@pytest.mark.parametrize("slots", [1, 2])
def test_many_plans_at_once_end_on_few_slots(slots: int, beside: ThreadPoolExecutor) -> None:
    with TaskSlotManager(slots) as manager:
        for answer in [beside.submit(manager.run_plan, join()) for _ in range(12)]:
            check_joined(answer.result(WAIT_S))


def test_other_work_takes_turns_with_the_tasks_of_a_plan(
    one_slot: TaskSlotManager, held: Gate, beside: ThreadPoolExecutor
) -> None:
    plan = beside.submit(one_slot.run_plan, held_plan())
    assert held.entered.wait(WAIT_S)
    before = processed(one_slot)
    call = one_slot.call_in_slot(lambda: processed(one_slot))
    held.open()
    assert call.result(WAIT_S) - before <= 3  # and not the whole plan
    assert plan.result(WAIT_S).num_rows == ROWS


def test_the_tasks_of_a_plan_are_on_its_job_s_account(
    one_slot: TaskSlotManager, gate: Gate, held: Gate, beside: ThreadPoolExecutor
) -> None:
    def burn() -> None:
        start = time.perf_counter()
        while time.perf_counter() - start < 0.002:
            pass

    def burn_morsel(rows: pa.RecordBatch) -> None:
        burn()
        burned.append(True)

    def burn_task() -> None:
        burn()
        burned_before_tasks.append(len(burned))

    HELD.act = burn_task
    burned: list[bool] = []
    burned_before_tasks: list[int] = []
    chunks = pa.concat_tables([LEFT.slice(row, 1) for row in range(10)])
    blocker = one_slot.call_in_slot(gate.hold)
    assert gate.entered.wait(WAIT_S)
    plan = beside.submit(one_slot.run_plan, held_plan(chunks), job="light", weight=0.1)
    while one_slot.get_queue_depth() < 1:
        threading.Event().wait(0.001)
    morsels = [Morsel(pa.record_batch({"a": [1]})) for _ in range(100)]
    heavy = beside.submit(one_slot.execute_morsels, morsels, burn_morsel, job="heavy", weight=1)
    while one_slot.get_queue_depth() < 101:
        threading.Event().wait(0.001)
    gate.open()
    plan.result(WAIT_S)
    heavy.result(WAIT_S)
    blocker.result(WAIT_S)
    assert burned_before_tasks[-1] >= 25  # some 80 by weight on a quiet machine, 10 where they took turns


def test_a_plan_from_inside_a_slot_runs_in_that_slot(one_slot: TaskSlotManager) -> None:
    check_joined(one_slot.call_in_slot(lambda: one_slot.run_plan(join())).result(WAIT_S))


def test_aggregates_that_go_by_order_need_one_slot(manager: TaskSlotManager) -> None:
    first_and_last = acero.AggregateNodeOptions([(["k"], "first", None, "f"), (["k"], "last", None, "l")])
    plan = acero.Declaration.from_sequence([source(LEFT), acero.Declaration("aggregate", first_and_last)])
    answer = manager.call_in_slot(lambda: manager.run_plan(plan)).result(WAIT_S)
    assert answer.to_pylist() == [{"f": 0, "l": ROWS - 1}]
    with pytest.raises(pa.ArrowNotImplementedError, match="ordered aggregator"):
        manager.run_plan(plan)


def test_cancel_in_mid_plan_drops_the_tasks_that_have_not_started(
    one_slot: TaskSlotManager, held: Gate, beside: ThreadPoolExecutor
) -> None:
    cancel = WatchedCancel()
    plan = beside.submit(one_slot.run_plan, held_plan(), cancel=cancel)
    assert held.entered.wait(WAIT_S)
    before = processed(one_slot)
    cancel.set()
    assert cancel.obeyed.wait(WAIT_S)
    held.open()
    with pytest.raises(JobCancelled):
        plan.result(WAIT_S)
    assert processed(one_slot) == before + 1  # the one that was held
    assert one_slot.get_queue_depth() == 0
    check_joined(one_slot.run_plan(join()))


def test_cancel_does_not_wait_for_other_work_in_the_slots(
    one_slot: TaskSlotManager, gate: Gate, beside: ThreadPoolExecutor
) -> None:
    busy = one_slot.call_in_slot(gate.hold)
    assert gate.entered.wait(WAIT_S)
    cancel = threading.Event()
    plan = beside.submit(one_slot.run_plan, join(), cancel=cancel)
    while one_slot.get_queue_depth() == 0:
        threading.Event().wait(0.001)
    cancel.set()
    with pytest.raises(JobCancelled):
        plan.result(WAIT_S)
    assert not busy.done()
    gate.open()
    busy.result(WAIT_S)


def test_a_plan_cancelled_before_its_start_is_cancelled(manager: TaskSlotManager) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(JobCancelled):
        manager.run_plan(join(), cancel=cancel)


def test_a_failing_plan_raises_its_error_and_leaves_others_alone(
    manager: TaskSlotManager, beside: ThreadPoolExecutor
) -> None:
    good = [beside.submit(manager.run_plan, join()) for _ in range(3)]
    bad = [beside.submit(manager.run_plan, through(pc.divide(pc.scalar(1), pc.field("k")))) for _ in range(3)]
    for plan in bad:
        with pytest.raises(pa.ArrowInvalid, match="divide by zero"):
            plan.result(WAIT_S)
    for plan in good:
        check_joined(plan.result(WAIT_S))


def test_what_a_function_raises_arrives_as_itself(manager: TaskSlotManager, held: Gate) -> None:
    def fail() -> None:
        raise LookupError("mine")

    HELD.act = fail
    with pytest.raises(LookupError, match="mine"):
        manager.run_plan(held_plan())


def test_a_declaration_that_is_no_plan_is_refused(manager: TaskSlotManager) -> None:
    with pytest.raises(KeyError):
        manager.run_plan(acero.Declaration("no_such_node", acero.ProjectNodeOptions([], [])))
    with pytest.raises(pa.ArrowInvalid):
        manager.run_plan(through(pc.field("no such column")))


def test_slots_come_and_go_while_plans_run(beside: ThreadPoolExecutor) -> None:
    with TaskSlotManager(2) as manager:
        plans = [beside.submit(manager.run_plan, join()) for _ in range(10)]
        for _ in range(6):
            manager.add_slots(6)
            manager.remove_slots(7)
            manager.add_slots(1)
        for plan in plans:
            check_joined(plan.result(WAIT_S))


@pytest.mark.parametrize("threads_max", [1, 2, 3])
def test_slots_beyond_acero_s_numbers_leave_their_tasks_to_the_waiting_thread(threads_max: int) -> None:
    with TaskSlotManager(8) as manager:
        check_joined(run_declaration(join(), manager.native_pool, threads_max=threads_max))


def test_shutdown_in_mid_plan_ends_the_wait_with_advice(held: Gate, beside: ThreadPoolExecutor) -> None:
    manager = TaskSlotManager(1)
    plan = beside.submit(manager.run_plan, held_plan())
    assert held.entered.wait(WAIT_S)
    ending = beside.submit(manager.shutdown, drain=False)
    until_closed(manager)
    held.open()
    ending.result(WAIT_S)
    with pytest.raises(UsageError, match="shut down before the plan ended"):
        plan.result(WAIT_S)


def test_a_draining_shutdown_lets_the_plan_end(held: Gate, beside: ThreadPoolExecutor) -> None:
    manager = TaskSlotManager(2)
    started = WatchedCancel()
    plan = beside.submit(manager.run_plan, held_plan(), cancel=started)
    assert held.entered.wait(WAIT_S) and started.looked.wait(WAIT_S)
    ending = beside.submit(manager.shutdown)
    until_closed(manager)
    held.open()
    assert plan.result(WAIT_S).num_rows == ROWS
    ending.result(WAIT_S)


def test_a_plan_after_shutdown_is_a_usage_error() -> None:
    manager = TaskSlotManager(1)
    manager.shutdown()
    with pytest.raises(UsageError, match="shut down"):
        manager.run_plan(join())
