"""Functions in worker processes: answers, exceptions, prints, limits, and what one worker may not know of another."""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.errors import LimitReached, TaskFailed, UsageError
from sabot.slots import Morsel, MorselOperator, Pipeline, TaskSlotManager
from sabot.slots.workers import WorkerLimits, log_printed
from sabot.wire.packed_function import pack_function
from sabot.wire.py_modules import pack_modules
from tests.slots.conftest import morsels_of

ROWS = pa.record_batch({"a": pa.array(range(1000), pa.int64())})
LOGGER = "sabot.slots.workers"


@pytest.fixture(scope="module")
def slots() -> Iterator[TaskSlotManager]:
    """Two slots whose nursery runs already."""
    with TaskSlotManager(num_slots=2) as manager:
        manager.execute_morsels([Morsel(ROWS)], lambda rows: rows, processes=True)
        yield manager


def answer_of(slots: TaskSlotManager, function: object, *, limits: WorkerLimits | None = None) -> pa.RecordBatch | None:
    """What `function` gives for ROWS in a worker."""
    workers = slots.worker_pool(limits=limits)
    try:
        [result] = slots.execute_morsels([Morsel(ROWS)], Pipeline([("worker", function, None)], workers=workers))
    finally:
        workers.close()
    return result.batch


def one(value: object) -> pa.RecordBatch:
    return pa.record_batch({"value": [value]})


def test_answers_come_from_other_processes_in_the_order_given(slots: TaskSlotManager, batch: pa.RecordBatch) -> None:
    def tag(rows: pa.RecordBatch) -> pa.RecordBatch:
        return rows.append_column("pid", pa.array([os.getpid()] * rows.num_rows))

    results = slots.execute_morsels(morsels_of(batch, 999), tag, processes=True)
    answers = pa.Table.from_batches([result.batch for result in results])
    assert answers.drop_columns("pid").equals(pa.Table.from_batches([batch]))
    pids = set(answers["pid"].to_pylist())
    assert os.getpid() not in pids and 1 <= len(pids) <= 2


def every_layout() -> pa.RecordBatch:
    return pa.record_batch(
        {
            "bool": pa.array([True, None, False, True]),
            "text": pa.array(["a", None, "\u00e9", ""]),
            "view": pa.array(["short", "a string longer than twelve", None, ""], pa.string_view()),
            "list": pa.array([[1], None, [], [2, 3]], pa.list_(pa.int16())),
            "dictionary": pa.array(["x", "y", None, "x"]).dictionary_encode(),
            "struct": pa.array([{"a": 1}, None, {"a": None}, {"a": 4}]),
            "null": pa.nulls(4),
            "decimal": pa.array([1, None, 3, 4], pa.decimal128(9, 2)),
        }
    )


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_every_layout_and_slice_survives_the_way_there_and_back(slots: TaskSlotManager, start: int) -> None:
    rows = every_layout()
    [result] = slots.execute_morsels([Morsel(rows, start)], lambda rows: rows, processes=True)
    assert result.batch is not None
    result.batch.validate(full=True)
    assert result.batch.equals(rows.slice(start))


def test_none_means_no_rows(slots: TaskSlotManager) -> None:
    assert answer_of(slots, lambda rows: None) is None


def test_expression_needs_no_process(slots: TaskSlotManager) -> None:
    [result] = slots.execute_morsels([Morsel(ROWS)], pc.field("a") < 3, processes=True)
    assert result.batch is not None and result.batch.num_rows == 3


def test_wrong_return_type_names_the_operator(slots: TaskSlotManager) -> None:
    def gives_a_table(rows: pa.RecordBatch) -> object:
        return pa.table({"a": [1]})

    with pytest.raises(TypeError, match=r"gives_a_table must return a pyarrow\.RecordBatch or None, not Table"):
        answer_of(slots, gives_a_table)


class Odd(Exception):
    """Takes other arguments than it hands on, and is not in an importable module for the worker."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} is not {right}")
        self.left = left


def test_exception_arrives_as_itself_with_its_traceback(slots: TaskSlotManager) -> None:
    def compare(rows: pa.RecordBatch) -> pa.RecordBatch:
        raise Odd(1, 2)

    with pytest.raises(Odd, match="1 is not 2") as raised:
        answer_of(slots, compare)
    notes = "\n".join(raised.value.__notes__)
    assert raised.value.left == 1
    assert "in compare" in notes and "raise Odd(1, 2)" in notes and "worker_main" not in notes
    assert "morsel=0 partition=0" in notes


def test_exception_that_cannot_be_pickled_arrives_as_task_failed_with_its_text(slots: TaskSlotManager) -> None:
    def locked(rows: pa.RecordBatch) -> pa.RecordBatch:
        import threading

        raise ValueError("with a lock inside", threading.Lock())

    with pytest.raises(TaskFailed, match=r"ValueError: .*with a lock inside"):
        answer_of(slots, locked)


def test_function_that_cannot_be_pickled_is_refused_before_anything_runs(slots: TaskSlotManager) -> None:
    import threading

    lock = threading.Lock()
    with pytest.raises(UsageError, match=r"cannot be sent to a worker process.*inside the function"):
        slots.execute_morsels([Morsel(ROWS)], lambda rows: rows if lock else None, processes=True)


def talk(rows: pa.RecordBatch) -> None:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    os.write(1, b"by descriptor\n")


def test_prints_come_out_here(slots: TaskSlotManager, capsys: pytest.CaptureFixture[str]) -> None:
    slots.execute_morsels(morsels_of(ROWS, 500), talk, processes=True)
    assert capsys.readouterr().out == 2 * "to stdout\nto stderr\nby descriptor\n"


def test_prints_go_to_the_log_with_job_and_morsel(slots: TaskSlotManager, caplog: pytest.LogCaptureFixture) -> None:
    workers = slots.worker_pool(printed=log_printed("local"))
    with caplog.at_level(logging.INFO, LOGGER):
        slots.execute_morsels(morsels_of(ROWS, 500), Pipeline([("worker", talk, None)], workers=workers))
    assert len(caplog.records) == 2
    for morsel in range(2):
        [text] = [record.getMessage() for record in caplog.records if f"morsel={morsel}" in record.getMessage()]
        assert "job=local" in text and "talk" in text
        assert "to stdout" in text and "to stderr" in text and "by descriptor" in text


def test_prints_are_bounded_for_each_morsel(slots: TaskSlotManager, capsys: pytest.CaptureFixture[str]) -> None:
    def flood(rows: pa.RecordBatch) -> None:
        for _ in range(100):
            print("x" * 9_999)

    answer_of(slots, flood, limits=WorkerLimits(output_bytes_max=5_000))
    text = capsys.readouterr().out
    assert text.count("x") == 5_000
    assert "[995,000 more bytes were printed and are not kept]" in text


@pytest.mark.parametrize("take", ["bytearray(300_000_000)", "pa.py_buffer(b'x' * 300_000_000)", "'x' * 300_000_000"])
def test_memory_over_the_limit_is_a_memory_error_that_names_the_key(slots: TaskSlotManager, take: str) -> None:
    def greedy(rows: pa.RecordBatch) -> pa.RecordBatch:
        import pyarrow as pa

        return pa.record_batch({"n": [len(eval(take, {"pa": pa}))]})

    with pytest.raises(MemoryError) as raised:
        answer_of(slots, greedy, limits=WorkerLimits(memory_bytes_max=200_000_000))
    assert any("slots.worker_memory_bytes" in note for note in raised.value.__notes__)
    # The same goes well under a higher limit: it was the limit that stopped it.
    fits = answer_of(slots, greedy, limits=WorkerLimits(memory_bytes_max=2_000_000_000))
    assert fits is not None


def test_answer_over_the_limit_is_refused(slots: TaskSlotManager) -> None:
    def large(rows: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch([pa.repeat(1, 2_000_000)] * 10, names=list("abcdefghij"))

    with pytest.raises(LimitReached, match=r"answer for a morsel measures 160,\d+,\d+ bytes, the limit is 100,000,000"):
        answer_of(slots, large, limits=WorkerLimits(memory_bytes_max=100_000_000))


def test_state_lasts_within_a_job_and_is_not_seen_by_another(slots: TaskSlotManager) -> None:
    def count(rows: pa.RecordBatch) -> pa.RecordBatch:
        import builtins

        builtins.sabot_test_calls = getattr(builtins, "sabot_test_calls", 0) + 1  # type: ignore[attr-defined]
        return one(builtins.sabot_test_calls)  # type: ignore[attr-defined]

    for _ in range(2):
        workers = slots.worker_pool()
        pipeline = Pipeline([("worker", count, None)], workers=workers)
        results = slots.execute_morsels([Morsel(ROWS)] * 6, pipeline)
        workers.close()
        by_slot: dict[int, list[int]] = {}
        for result in results:
            assert result.batch is not None
            by_slot.setdefault(result.slot_id, []).append(result.batch["value"][0].as_py())
        assert all(calls == list(range(1, len(calls) + 1)) for calls in map(sorted, by_slot.values()))


def test_rows_that_a_function_keeps_are_never_written_over() -> None:
    kept: list[pa.RecordBatch] = []

    def keep(rows: pa.RecordBatch) -> pa.RecordBatch:
        kept.append(rows)
        return one([batch["a"][0].as_py() for batch in kept])

    with TaskSlotManager(num_slots=1) as single:
        operator = MorselOperator(keep, manager=single, processes=True)
        firsts = [operator.process_batch(ROWS.slice(start, 100))["value"][0].as_py() for start in range(0, 500, 100)]
    assert firsts[-1] == [0, 100, 200, 300, 400]


def test_worker_has_no_descriptor_but_its_own(slots: TaskSlotManager) -> None:
    def descriptors(rows: pa.RecordBatch) -> pa.RecordBatch:
        links = [link for link in list(Path("/proc/self/fd").iterdir()) if link.is_symlink()]
        return one(sorted(str(link.readlink()) for link in links))

    answer = answer_of(slots, descriptors)
    assert answer is not None
    kinds = sorted(link.split(":")[0].lstrip("/") for link in answer["value"][0].as_py() if "/proc/" not in link)
    # standard input, the output twice, the slot's socket, and the memory of the morsel and of answers
    assert kinds == ["dev/null", "memfd", "memfd", "pipe", "pipe", "socket"]


def test_morsel_cannot_be_written_by_the_worker(slots: TaskSlotManager) -> None:
    def scribble(rows: pa.RecordBatch) -> pa.RecordBatch:
        import mmap

        refused = []
        links = [link for link in list(Path("/proc/self/fd").iterdir()) if link.is_symlink()]
        [morsel] = [int(link.name) for link in links if "sabot-morsel" in str(link.readlink())]
        for attempt in (lambda: mmap.mmap(morsel, 4096), lambda: os.pwrite(morsel, b"x", 0)):
            try:
                attempt()
            except OSError as error:
                refused.append(type(error).__name__)
        return one(refused)

    answer = answer_of(slots, scribble)
    assert answer is not None
    assert answer["value"][0].as_py() == ["PermissionError", "PermissionError"]


def test_answer_is_out_of_the_workers_reach_once_it_has_arrived() -> None:
    def scribble(rows: pa.RecordBatch) -> pa.RecordBatch | None:
        if rows.num_rows == 1000:
            return rows
        links = [link for link in list(Path("/proc/self/fd").iterdir()) if link.is_symlink()]
        written = 0
        for fd in [int(link.name) for link in links if "memfd" in str(link.readlink())]:
            with suppress(PermissionError):
                written += os.pwrite(fd, b"\xff" * 4096, 0)
        return None if written else rows

    with TaskSlotManager(num_slots=1) as manager:
        operator = MorselOperator(scribble, manager=manager, processes=True)
        answer = operator.process_batch(ROWS)
        assert operator.process_batch(ROWS.slice(0, 10)).num_rows == 0  # it has found memory to write to
    assert answer.equals(ROWS)


@pytest.mark.parametrize("times", [1, 100, 5_000])
def test_answers_of_any_size_arrive_whole(times: int) -> None:
    def repeat(rows: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch({"a": pa.concat_arrays([rows["a"]] * times)})

    with TaskSlotManager(num_slots=1) as manager:
        operator = MorselOperator(repeat, manager=manager, processes=True)
        for rows in (ROWS, ROWS.slice(0, 3), ROWS):
            answer = operator.process_batch(rows)
            assert answer.equals(pa.record_batch({"a": pa.concat_arrays([rows["a"]] * times)}))


def test_environment_and_import_path_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("VALUE = 42\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SABOT_TEST_MARK", "set by the test")

    def look(rows: pa.RecordBatch) -> pa.RecordBatch:
        import only_here  # type: ignore[import-not-found]

        return one(
            [dict(os.environ)["SABOT_TEST_MARK"], str(only_here.VALUE), str("JE_ARROW_MALLOC_CONF" in dict(os.environ))]
        )

    with TaskSlotManager(num_slots=1) as manager:
        answer = answer_of(manager, look)
    assert answer is not None
    assert answer["value"][0].as_py() == ["set by the test", "42", "False"]


def test_modules_travel_with_the_job(slots: TaskSlotManager, tmp_path: Path) -> None:
    package = tmp_path / "travelling"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("from travelling.inner.numbers import ANSWER\n")
    (package / "inner" / "__init__.py").write_text("")
    (package / "inner" / "numbers.py").write_text("ANSWER = 41\n")
    (tmp_path / "single.py").write_text(
        "class Wrong(Exception):\n    pass\n\ndef fail():\n    raise Wrong('from single')\n"
    )
    modules = pack_modules([package, tmp_path / "single.py"])
    assert modules is not None and modules.names == ("travelling", "single")

    def use(rows: pa.RecordBatch) -> pa.RecordBatch:
        import single  # type: ignore[import-not-found]
        import travelling  # type: ignore[import-not-found]

        if rows.num_rows == 1:
            single.fail()
        return one(travelling.ANSWER)

    workers = slots.worker_pool(py_modules=modules)
    pipeline = Pipeline([("worker", use, None)], workers=workers)
    [result] = slots.execute_morsels([Morsel(ROWS)], pipeline)
    assert result.batch is not None and result.batch["value"].to_pylist() == [41]
    # A class that this process does not have arrives as text, with the line that raised.
    with pytest.raises(TaskFailed, match=r"single\.Wrong: from single") as raised:
        slots.execute_morsels([Morsel(ROWS, 0, 1)], pipeline)
    assert any("raise Wrong('from single')" in note for note in raised.value.__notes__)
    workers.close()
    with pytest.raises(ModuleNotFoundError):
        answer_of(slots, use)


def test_function_that_cannot_be_loaded_says_what_to_do(slots: TaskSlotManager) -> None:
    packed = pack_function(lambda rows: rows, "absent")
    broken = type(packed)(name="absent", pickled=pickle.dumps(os.path.join).replace(b"posixpath", b"nosuchmod"))
    with pytest.raises(UsageError, match=r"the function .*cannot be loaded here: ModuleNotFoundError.*py_modules"):
        answer_of(slots, broken)


@pytest.mark.parametrize("timeout_s", [0, -1, True, float("nan"), 1e12])
def test_timeout_that_is_none_is_refused(slots: TaskSlotManager, timeout_s: float) -> None:
    with pytest.raises(UsageError, match="timeout_s is"):
        slots.execute_morsels([Morsel(ROWS)], lambda rows: rows, processes=True, timeout_s=timeout_s)


def test_timeout_in_the_slots_own_thread_is_refused(slots: TaskSlotManager) -> None:
    with pytest.raises(UsageError, match="needs processes=True"):
        slots.execute_morsels([Morsel(ROWS)], lambda rows: rows, timeout_s=1)
    with pytest.raises(UsageError, match="needs processes=True"):
        MorselOperator(lambda rows: rows, manager=slots, timeout_s=1)


def test_session_inside_a_worker_is_refused(slots: TaskSlotManager) -> None:
    def nest(rows: pa.RecordBatch) -> pa.RecordBatch:
        import sabot

        sabot.connect("127.0.0.1:1")
        return rows

    with pytest.raises(UsageError, match="inside a worker"):
        answer_of(slots, nest)


def test_unordered_answers_come_from_workers_too(slots: TaskSlotManager, batch: pa.RecordBatch) -> None:
    results = slots.execute_morsels(morsels_of(batch, 5_000), lambda rows: rows, ordered=False, processes=True)
    assert sorted(result.morsel_id for result in results) == list(range(10))
