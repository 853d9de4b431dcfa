"""Slots that end with their test, and the batch of the benchmark."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from sabot.slots import Morsel, TaskSlotManager

WAIT_S = 30.0


@pytest.fixture
def manager() -> Iterator[TaskSlotManager]:
    with TaskSlotManager(num_slots=3) as slots:
        yield slots


@pytest.fixture
def one_slot() -> Iterator[TaskSlotManager]:
    with TaskSlotManager(num_slots=1) as slots:
        yield slots


@pytest.fixture
def batch() -> pa.RecordBatch:
    """50,000 rows of two int64: 16 bytes a row."""
    numbers = pa.array(range(50_000), pa.int64())
    return pa.record_batch({"a": numbers, "b": numbers})


class Gate:
    """Holds whoever calls `hold` until it is opened; `entered` says that somebody is inside."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._open = threading.Event()

    def hold(self, answer: object = None) -> object:
        self.entered.set()
        assert self._open.wait(WAIT_S)
        return answer

    def open(self) -> None:
        self._open.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def morsels_of(batch: pa.RecordBatch, rows: int) -> list[Morsel]:
    return [
        Morsel(batch, start, min(rows, batch.num_rows - start), partition_id=start)
        for start in range(0, batch.num_rows, rows)
    ]
