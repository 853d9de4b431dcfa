"""Whose slot time a shuffle uses, and that nobody waits for a slot for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from sabot.errors import LimitReached, UsageError
from sabot.shuffle import ShuffleTransport
from sabot.shuffle.partitioning import HashPartitioning
from sabot.slots import TaskSlotManager
from tests.slots.conftest import WAIT_S, Gate, morsels_of

SHORT_S = 0.2
INDEBTED: dict[str, Any] = {"job": "indebted", "weight": 0.001}
ANOTHER: dict[str, Any] = {"job": "another", "weight": 1_000}


@pytest.fixture
def slots() -> Iterator[TaskSlotManager]:
    """One slot: whoever holds it holds all."""
    with TaskSlotManager(num_slots=1) as manager:
        yield manager


@pytest.fixture
def gate(slots: TaskSlotManager) -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def transport(make_transport: Callable[..., ShuffleTransport]) -> ShuffleTransport:
    return make_transport()


def hold_the_slot(slots: TaskSlotManager, gate: Gate) -> None:
    slots.call_in_slot(gate.hold)
    assert gate.entered.wait(WAIT_S)


def test_audit_that_no_slot_comes_to_is_given_up_at_the_deadline(
    slots: TaskSlotManager, transport: ShuffleTransport, rows: pa.RecordBatch, gate: Gate
) -> None:
    transport.start_shuffle("s", 1, [transport.address])
    transport.send_partition("s", 0, rows)
    transport.finish_shuffle("s", timeout_s=WAIT_S)
    hold_the_slot(slots, gate)
    with pytest.raises(LimitReached, match="slots are busy"):
        transport.receive_partition("s", 0, SHORT_S)
    assert slots.get_queue_depth() == 0  # it has left nothing behind
    gate.open()
    assert transport.receive_partition("s", 0).read_all().num_rows == rows.num_rows


def test_rows_that_no_slot_comes_to_partition_are_not_sent_and_may_be_given_again(
    slots: TaskSlotManager, transport: ShuffleTransport, rows: pa.RecordBatch, gate: Gate
) -> None:
    transport.open_shuffle("s", num_partitions=2, owners=[transport.address], schema=rows.schema)
    writer = transport.attempt_writer("s", task=0, attempt=0, partitioning=HashPartitioning(("number",)))
    hold_the_slot(slots, gate)
    with pytest.raises(LimitReached, match="slots are busy"):
        writer.write([rows], timeout_s=SHORT_S)
    assert slots.get_queue_depth() == 0
    gate.open()
    writer.write([rows])
    assert writer.finish(timeout_s=WAIT_S).rows == rows.num_rows


class Busy:
    """A job that keeps the slot busy, and another that owes it so much time that its turn does not come."""

    def __init__(self, slots: TaskSlotManager, rows: pa.RecordBatch) -> None:
        self._slots = slots
        self._rows = rows
        self._done = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._keep_busy)

    def _keep_busy(self) -> None:
        self._slots.execute_morsels(morsels_of(self._rows, 1) * 1_000, self._spin, job="busy", weight=1_000)

    def _spin(self, _: pa.RecordBatch) -> None:
        self._begun.set()
        until = time.perf_counter() + 0.0005
        while time.perf_counter() < until and not self._done.is_set():
            pass

    def __enter__(self) -> Busy:
        self._thread.start()
        assert self._begun.wait(WAIT_S)
        self._slots.call_in_slot(lambda: self._spin(self._rows), **INDEBTED).result(WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(WAIT_S)


@pytest.mark.parametrize(("share", "waits"), [(INDEBTED, True), (ANOTHER, False)])
def test_audit_and_processor_go_on_the_account_of_their_job(
    slots: TaskSlotManager, transport: ShuffleTransport, rows: pa.RecordBatch, share: dict[str, Any], waits: bool
) -> None:
    for shuffle_id, processor in (("audited", None), ("processed", lambda part: part)):
        transport.start_shuffle(shuffle_id, 1, [transport.address], processor, **share)
    with Busy(slots, rows):
        for shuffle_id in ("audited", "processed"):
            transport.send_partition(shuffle_id, 0, rows)
            transport.finish_shuffle(shuffle_id, timeout_s=WAIT_S)
            if waits:
                with pytest.raises(LimitReached):
                    transport.receive_partition(shuffle_id, 0, SHORT_S)
            else:
                assert transport.receive_partition(shuffle_id, 0).read_all().num_rows == rows.num_rows
    for shuffle_id in ("audited", "processed") if waits else ():
        assert transport.receive_partition(shuffle_id, 0).read_all().num_rows == rows.num_rows


@pytest.mark.parametrize(("share", "waits"), [(INDEBTED, True), (ANOTHER, False)])
def test_partitioning_goes_on_the_account_of_its_job(
    slots: TaskSlotManager, transport: ShuffleTransport, rows: pa.RecordBatch, share: dict[str, Any], waits: bool
) -> None:
    transport.open_shuffle("s", num_partitions=2, owners=[transport.address], schema=rows.schema, **share)
    writer = transport.attempt_writer("s", task=0, attempt=0, partitioning=HashPartitioning(("number",)))
    with Busy(slots, rows):
        if waits:
            with pytest.raises(LimitReached):
                writer.write([rows], timeout_s=SHORT_S)
        else:
            writer.write([rows])
    writer.write([rows])


def test_weight_out_of_range_is_a_usage_error(transport: ShuffleTransport) -> None:
    with pytest.raises(UsageError, match="weight"):
        transport.start_shuffle("s", 1, [transport.address], weight=0)
