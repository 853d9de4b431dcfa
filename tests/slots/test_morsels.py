"""Morsel values, how batches are cut into morsels, MorselOperator's streams and MorselExecutor."""

from __future__ import annotations

import gc
import math
import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot.errors import UsageError
from sabot.slots import Morsel, MorselExecutor, MorselOperator, MorselResult, MorselSource, TaskSlotManager
from tests.slots.conftest import WAIT_S, Gate


def test_empty_morsel_can_be_filled_in_later(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    morsel = Morsel()
    assert (morsel.batch, morsel.start_row, morsel.num_rows, morsel.partition_id) == (None, 0, 0, 0)
    assert morsel.source is MorselSource.LOCAL
    morsel.batch, morsel.start_row, morsel.num_rows = batch, 10, 5
    morsel.partition_id, morsel.source = 3, MorselSource.NETWORK
    [result] = manager.execute_morsels([morsel], lambda rows: rows)
    assert result.batch is not None
    assert result.batch.equals(batch.slice(10, 5))


def test_morsel_without_num_rows_goes_to_the_end(batch: pa.RecordBatch) -> None:
    assert Morsel(batch, 10).num_rows == 49_990
    assert "num_rows=49990" in repr(Morsel(batch, 10))


@given(num_rows=st.integers(0, 500), columns=st.integers(0, 3), morsel_bytes=st.integers(1, 10_000))
def test_every_row_is_in_one_morsel_of_the_size_asked(num_rows: int, columns: int, morsel_bytes: int) -> None:
    column = pa.array(range(num_rows), pa.int64())
    batch = pa.RecordBatch.from_arrays([column] * columns, [f"c{i}" for i in range(columns)])
    if columns == 0:
        batch = pa.record_batch({"a": column}).select([])
    with MorselExecutor(num_threads=1) as executor:
        answers = executor.execute_local(batch, morsel_bytes, lambda rows: rows)
    assert pa.Table.from_batches(answers).equals(pa.Table.from_batches([batch]))
    rows_each = max(1, morsel_bytes // (8 * columns)) if columns else max(1, num_rows)
    assert len(answers) == max(1, math.ceil(num_rows / rows_each))


def test_fifty_thousand_rows_of_two_int64_are_thirteen_morsels(batch: pa.RecordBatch) -> None:
    with MorselExecutor(num_threads=4) as executor:
        assert executor.num_threads == 4
        answers = executor.execute_local(
            batch, 64 * 1024, lambda rows: pa.record_batch([pc.multiply(rows["a"], 2), rows["b"]], ["a", "b"])
        )
        assert len(answers) == 13
        assert pc.sum(pa.chunked_array([answer["a"] for answer in answers])).as_py() == 50_000 * 49_999
        assert executor.get_stats() == {
            "total_morsels_created": 13,
            "total_morsels_processed": 13,
            "total_batches_executed": 1,
        }


def test_executor_counts_what_it_skipped_as_not_processed(batch: pa.RecordBatch) -> None:
    def fail(rows: pa.RecordBatch) -> pa.RecordBatch:
        raise ValueError("no")

    with MorselExecutor(num_threads=1) as executor:
        with pytest.raises(ValueError, match="no"):
            executor.execute_local(batch, 64 * 1024, fail)
        assert executor.get_stats()["total_morsels_processed"] == 1
    counted = executor.get_stats()
    with pytest.raises(UsageError, match="shut down"):
        executor.execute_local(batch, "auto", fail)
    assert executor.get_stats() == counted


@pytest.mark.parametrize("morsel_bytes", [0, -1, 1.5, "big", None, True])
def test_bad_morsel_bytes_are_a_usage_error(manager: TaskSlotManager, morsel_bytes: Any) -> None:
    with pytest.raises(UsageError, match="morsel_bytes is"):
        MorselOperator(lambda rows: rows, manager=manager, morsel_bytes=morsel_bytes)


def test_size_of_view_types_is_known_well_enough(manager: TaskSlotManager) -> None:
    batch = pa.record_batch({"s": pa.array(["a long enough string to be out of line"] * 100, pa.string_view())})
    answer = MorselOperator(lambda rows: rows, manager=manager, morsel_bytes=64).process_batch(batch)
    assert answer.equals(batch)


def test_stream_keeps_the_order_of_its_batches(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    operator = MorselOperator(lambda rows: rows, manager=manager, morsel_bytes=16_000)
    parts = [batch.slice(start, 5_000) for start in range(0, 50_000, 5_000)]
    assert list(operator.process(parts)) == parts


def test_stream_leaves_out_batches_without_an_answer(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    operator = MorselOperator(lambda rows: rows if rows["a"][0].as_py() != 1 else None, manager=manager)
    answers = list(operator.process([batch.slice(row, 1) for row in range(3)]))
    assert [answer["a"][0].as_py() for answer in answers] == [0, 2]


def test_stream_reads_only_a_bounded_number_of_batches_ahead(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    read = 0

    def source() -> Iterator[pa.RecordBatch]:
        nonlocal read
        for row in range(1_000):
            read += 1
            yield batch.slice(row, 1)

    stream = MorselOperator(lambda rows: rows, manager=manager).process(source())
    for taken in range(1, 20):
        next(stream)
        assert read <= taken + 2 * 3
    stream.close()  # type: ignore[attr-defined]


def test_abandoned_stream_runs_no_more(one_slot: TaskSlotManager, batch: pa.RecordBatch, gate: Gate) -> None:
    ran: list[int] = []

    def note(rows: pa.RecordBatch) -> pa.RecordBatch:
        ran.append(rows["a"][0].as_py())
        if len(ran) == 2:
            gate.hold()
        return rows

    stream = MorselOperator(note, manager=one_slot).process(batch.slice(row, 1) for row in range(10))
    next(stream)
    assert gate.entered.wait(WAIT_S)
    stream.close()  # type: ignore[attr-defined]
    gate.open()
    one_slot.shutdown()
    assert ran == [0, 1]


def test_operator_that_gives_nothing_gives_no_rows(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    answer = MorselOperator(lambda rows: None, manager=manager).process_batch(batch)
    assert (answer.num_rows, answer.schema) == (0, batch.schema)


def test_different_schemas_for_one_batch_are_a_type_error(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    def fickle(rows: pa.RecordBatch) -> pa.RecordBatch:
        return rows if rows["a"][0].as_py() == 0 else rows.select(["a"])

    with pytest.raises(TypeError, match="fickle returned batches of different schemas"):
        MorselOperator(fickle, manager=manager, morsel_bytes=64 * 1024).process_batch(batch)


def test_table_instead_of_a_batch_is_a_usage_error(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    with pytest.raises(UsageError, match=r"a Table has to_batches\(\)"):
        MorselOperator(lambda rows: rows, manager=manager).process_batch(pa.Table.from_batches([batch]))
    with pytest.raises(UsageError, match="give a TaskSlotManager"):
        MorselOperator(lambda rows: rows, manager=3)  # type: ignore[arg-type]


def test_operator_is_accepted_where_a_function_is(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    operator = MorselOperator(pc.field("a") < 3, manager=manager)
    result = manager.enqueue_morsel(Morsel(batch), operator).result(WAIT_S)
    assert result.batch is not None
    assert result.batch.num_rows == 3


def test_exception_that_was_raised_lets_go_of_its_frames(batch: pa.RecordBatch) -> None:
    class Held:
        pass

    def fail() -> weakref.ref[Held]:
        held = Held()

        def raising(rows: pa.RecordBatch) -> None:
            raise ValueError("mine")

        with TaskSlotManager(num_slots=1) as manager, pytest.raises(ValueError, match="mine"):
            manager.execute_morsels([Morsel(batch)], raising)
        return weakref.ref(held)

    reference = fail()
    gc.collect()
    assert reference() is None


def a_result(rows: pa.RecordBatch, **changed: Any) -> MorselResult:
    values = {"batch": rows, "morsel_id": 7, "slot_id": 1, "source": MorselSource.NETWORK, "queue_us": 3, "run_us": 5}
    return MorselResult(**{**values, **changed})


def test_result_is_a_value(batch: pa.RecordBatch) -> None:
    result = a_result(batch)
    assert result == a_result(batch)
    assert hash(a_result(batch, batch=None)) == hash(a_result(batch, batch=None))
    for change in ({"batch": None}, {"morsel_id": 8}, {"slot_id": 2}, {"source": MorselSource.LOCAL}, {"queue_us": 4}):
        assert result != a_result(batch, **change)
    assert result != (batch, 7, 1, MorselSource.NETWORK, 3, 5)
    with pytest.raises(AttributeError):
        result.run_us = 6  # type: ignore[misc]


def test_result_travels_by_pickle(batch: pa.RecordBatch) -> None:
    assert pickle.loads(pickle.dumps(a_result(batch))) == a_result(batch)


def test_result_says_what_it_is() -> None:
    result = MorselResult(batch=None, morsel_id=0, slot_id=2, source=MorselSource.LOCAL, queue_us=1, run_us=4)
    assert repr(result) == (
        "MorselResult(batch=None, morsel_id=0, slot_id=2, source=<MorselSource.LOCAL: 'local'>, queue_us=1, run_us=4)"
    )


def test_result_has_the_source_of_its_morsel(manager: TaskSlotManager, batch: pa.RecordBatch) -> None:
    sources = [MorselSource.NETWORK, MorselSource.LOCAL, MorselSource.NETWORK]
    morsels = [Morsel(batch, source=source) for source in sources]
    assert [result.source for result in manager.execute_morsels(morsels, lambda rows: None)] == sources
    results = manager.execute_morsels(morsels, lambda rows: None, ordered=False)
    assert {result.morsel_id: result.source for result in results} == dict(enumerate(sources))
    assert manager.enqueue_morsel(morsels[0], lambda rows: None).result(WAIT_S).source is MorselSource.NETWORK
