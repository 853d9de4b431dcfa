"""Every way for a worker to die or to be ended: the morsel fails by name, the slots live, nothing is left behind."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from sabot.errors import JobCancelled, LimitReached, SabotError, TaskFailed, UsageError
from sabot.slots import Morsel, MorselOperator, Pipeline, TaskSlotManager
from tests.slots.conftest import WAIT_S

ROWS = pa.record_batch({"a": pa.array(range(1000), pa.int64())})


@pytest.fixture(scope="module")
def slots() -> Iterator[TaskSlotManager]:
    """One slot whose nursery runs already."""
    with TaskSlotManager(num_slots=1) as manager:
        manager.execute_morsels([Morsel(ROWS)], lambda rows: rows, processes=True)
        yield manager


def wait_until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not fact():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


def exits(rows: pa.RecordBatch) -> None:
    os._exit(3)


def segfaults(rows: pa.RecordBatch) -> None:
    ctypes.string_at(0)


def aborts(rows: pa.RecordBatch) -> None:
    os.abort()


def is_killed(rows: pa.RecordBatch) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def uses_up_its_stack(rows: pa.RecordBatch) -> None:
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))
    sys.setrecursionlimit(10**9)
    nested: list[object] = []
    for _ in range(10**6):
        nested = [nested]
    repr_in_c(nested)


def repr_in_c(nested: object) -> None:
    import pickle

    pickle.dumps(nested)


def closes_everything(rows: pa.RecordBatch) -> None:
    os.closerange(0, 1000)
    signal.pause()


def lies_about_its_answer(rows: pa.RecordBatch) -> None:
    os.write(3, b"no reply at all")
    signal.pause()


def gives_an_unsealed_answer(rows: pa.RecordBatch) -> None:
    import socket
    import struct

    fd = os.memfd_create("unsealed")
    os.write(fd, b"x" * 64)
    socket.send_fds(socket.socket(fileno=3), [struct.pack("=IIQ", 1, 0, 64)], [fd])
    signal.pause()


def gives_rows_that_are_not_valid(rows: pa.RecordBatch) -> pa.RecordBatch:
    offsets = pa.array([0, 100], pa.int32()).buffers()[1]
    text = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe" * 60)])
    return pa.record_batch([text], names=["text"])


DEATHS: dict[Callable[[pa.RecordBatch], object], tuple[str, dict[str, object]]] = {
    exits: ("ended with exit code 3", {"exit_code": 3}),
    segfaults: ("was killed by SIGSEGV", {"signal": 11}),
    aborts: ("was killed by SIGABRT", {"signal": 6}),
    is_killed: ("was killed by SIGKILL", {"signal": 9}),
    uses_up_its_stack: ("was killed by SIGSEGV", {"signal": 11}),
    closes_everything: ("lost its worker process, which ended", {}),
    lies_about_its_answer: ("cannot be trusted any more: it sent what is no reply", {}),
    gives_an_unsealed_answer: ("cannot be mapped: Operation not permitted", {}),
    gives_rows_that_are_not_valid: ("gave rows that are not valid: .*UTF8", {}),
}


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: death.__name__)
def test_worker_that_dies_fails_its_morsel_and_the_next_gets_another(
    slots: TaskSlotManager, death: Callable[[pa.RecordBatch], pa.RecordBatch | None]
) -> None:
    text, facts = DEATHS[death]

    def dies_for_few_rows(rows: pa.RecordBatch) -> pa.RecordBatch | None:
        return death(rows) if rows.num_rows == 1 else rows

    operator = MorselOperator(dies_for_few_rows, manager=slots, processes=True)
    with pytest.raises(TaskFailed, match=text) as raised:
        operator.process_batch(ROWS.slice(0, 1))
    expected = {"function": "dies_for_few_rows", "morsel": 0, **facts}
    got = {name: raised.value.facts[name] for name in expected}
    assert {**got, "function": str(got["function"]).rpartition(".")[2]} == expected
    assert operator.process_batch(ROWS).equals(ROWS)


def test_worker_killed_from_outside_fails_its_morsel(slots: TaskSlotManager) -> None:
    workers = slots.worker_pool()
    future = slots.enqueue_morsel(Morsel(ROWS), Pipeline([("worker", sleeps, None)], workers=workers))
    wait_until(lambda: bool(workers.pids()))
    os.kill(workers.pids()[0], signal.SIGKILL)
    with pytest.raises(TaskFailed, match="SIGKILL"):
        future.result(WAIT_S)


def loops(rows: pa.RecordBatch) -> None:
    while True:
        pass


def sleeps(rows: pa.RecordBatch) -> None:
    signal.pause()


def sleeps_in_c_with_the_gil(rows: pa.RecordBatch) -> None:
    ctypes.PyDLL(None).pause()


def ignores_signals(rows: pa.RecordBatch) -> None:
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    signal.pause()


def stops_itself(rows: pa.RecordBatch) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def prints_without_end(rows: pa.RecordBatch) -> None:
    while True:
        os.write(1, b"x" * 60_000)


ENDLESS = [loops, sleeps, sleeps_in_c_with_the_gil, ignores_signals, stops_itself]


@pytest.mark.parametrize("endless", ENDLESS)
def test_time_limit_ends_a_call_in_its_middle(slots: TaskSlotManager, endless: Callable[..., None]) -> None:
    with pytest.raises(LimitReached, match="ran longer than its limit of 50 ms a morsel") as raised:
        slots.execute_morsels([Morsel(ROWS)], endless, processes=True, timeout_s=0.05)
    assert raised.value.facts == {"timeout_ms": 50, "function": endless.__name__, "morsel": 0}


@pytest.mark.parametrize("endless", [*ENDLESS, prints_without_end])
def test_cancel_ends_a_call_in_its_middle(manager: TaskSlotManager, endless: Callable[..., None]) -> None:
    operator = MorselOperator(endless, manager=manager, processes=True)
    other = MorselOperator(lambda rows: rows, manager=manager, processes=True)
    future = manager.enqueue_morsel(Morsel(ROWS), operator)
    wait_until(lambda: bool(operator.workers and operator.workers.pids()))
    assert operator.workers is not None
    [pid] = operator.workers.pids()
    assert other.process_batch(ROWS).equals(ROWS)
    future.cancel()
    with pytest.raises(CancelledError):
        future.result(WAIT_S)
    wait_until(lambda: not psutil.pid_exists(pid))
    assert other.process_batch(ROWS).equals(ROWS)


def test_cancel_event_ends_a_call_in_its_middle(slots: TaskSlotManager) -> None:
    workers = slots.worker_pool()
    cancel = threading.Event()
    pipeline = Pipeline([("worker", loops, None)], workers=workers)

    def cancel_when_it_runs() -> None:
        wait_until(lambda: bool(workers.pids()))
        cancel.set()

    canceller = threading.Thread(target=cancel_when_it_runs)
    canceller.start()
    with pytest.raises(JobCancelled):
        slots.run_operator([ROWS], pipeline, cancel=cancel)
    canceller.join()


def test_closed_pool_ends_its_calls_and_takes_no_more(slots: TaskSlotManager) -> None:
    workers = slots.worker_pool()
    pipeline = Pipeline([("worker", loops, None)], workers=workers)
    future = slots.enqueue_morsel(Morsel(ROWS), pipeline)
    wait_until(lambda: bool(workers.pids()))
    workers.close()
    with pytest.raises(CancelledError):
        future.result(WAIT_S)
    with pytest.raises(JobCancelled, match="in mid-call"):
        slots.execute_morsels([Morsel(ROWS)], pipeline)


def test_shutdown_without_drain_ends_calls_in_their_middle() -> None:
    manager = TaskSlotManager(num_slots=1)
    workers = manager.worker_pool()
    future = manager.enqueue_morsel(Morsel(ROWS), Pipeline([("worker", loops, None)], workers=workers))
    wait_until(lambda: bool(workers.pids()))
    manager.shutdown(drain=False)
    assert isinstance(future.exception(WAIT_S) if not future.cancelled() else JobCancelled(""), SabotError)
    with pytest.raises(UsageError, match="shut down"):
        manager.worker_pool()


def test_processes_that_a_worker_started_end_with_it(slots: TaskSlotManager, tmp_path: Path) -> None:
    note = tmp_path / "pids"

    def start_others(rows: pa.RecordBatch) -> None:
        child = subprocess.Popen(["sleep", "1000"])
        stray = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        note.write_text(f"{child.pid} {stray.pid} end")
        loops(rows)

    workers = slots.worker_pool()
    future = slots.enqueue_morsel(Morsel(ROWS), Pipeline([("worker", start_others, None)], workers=workers))
    wait_until(lambda: note.exists() and note.read_text().endswith("end"))
    child, stray, _ = note.read_text().split()
    workers.close()
    with pytest.raises(CancelledError):
        future.result(WAIT_S)
    wait_until(lambda: not psutil.pid_exists(int(child)))
    wait_until(lambda: not psutil.pid_exists(int(stray)))


def test_nursery_that_was_killed_takes_its_workers_along_and_is_replaced() -> None:
    with TaskSlotManager(num_slots=1) as manager:
        workers = manager.worker_pool()
        future = manager.enqueue_morsel(Morsel(ROWS), Pipeline([("worker", loops, None)], workers=workers))
        wait_until(lambda: bool(workers.pids()))
        [worker] = workers.pids()
        first = manager.nursery_pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        with pytest.raises(TaskFailed, match="lost its worker process"):
            future.result(WAIT_S)
        wait_until(lambda: not psutil.pid_exists(worker))
        manager.execute_morsels([Morsel(ROWS)], lambda rows: rows, processes=True)
        assert manager.nursery_pid not in (None, first)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nursery_that_could_not_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with TaskSlotManager(num_slots=1) as manager:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", "/no/such/python")
            with pytest.raises(TaskFailed, match="got no worker process"):
                manager.execute_morsels([Morsel(ROWS)], lambda rows: rows, processes=True)
        [result] = manager.execute_morsels([Morsel(ROWS)], lambda rows: rows, processes=True)
        assert result.batch == ROWS


def test_time_limit_holds_for_a_function_that_prints(slots: TaskSlotManager) -> None:
    def talk(rows: pa.RecordBatch) -> None:
        while True:
            print(".", flush=True)

    workers = slots.worker_pool(printed=lambda *_: None)
    with pytest.raises(LimitReached, match="ran longer than its limit"):
        slots.execute_morsels([Morsel(ROWS)], Pipeline([("worker", talk, 0.2)], workers=workers))


def test_nursery_is_a_single_thread_and_not_there_before_it_is_needed() -> None:
    with TaskSlotManager(num_slots=1) as manager:
        manager.execute_morsels([Morsel(ROWS)], lambda rows: rows)
        assert manager.nursery_pid is None
        manager.execute_morsels([Morsel(ROWS)], lambda rows: rows, processes=True)
        assert manager.nursery_pid is not None
        assert psutil.Process(manager.nursery_pid).num_threads() == 1


def test_nothing_survives_a_killed_parent() -> None:
    script = """
import os, signal, sys, threading
import pyarrow as pa
from sabot.slots import Morsel, Pipeline, TaskSlotManager
manager = TaskSlotManager(num_slots=1)
workers = manager.worker_pool()
rows = pa.record_batch({"a": [1]})
def loops(rows):
    while True: pass
future = manager.enqueue_morsel(Morsel(rows), Pipeline([("worker", loops, None)], workers=workers))
while not workers.pids():
    pass
print(manager.nursery_pid, *workers.pids(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    pids = [int(pid) for pid in ended.stdout.split()]
    assert len(pids) == 2, ended.stderr
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_exit_in_the_middle_of_a_call_does_not_hang() -> None:
    script = """
import pyarrow as pa
from sabot.slots import Morsel, MorselOperator, TaskSlotManager
manager = TaskSlotManager(num_slots=1)
def loops(rows):
    while True: pass
manager.enqueue_morsel(Morsel(pa.record_batch({"a": [1]})), MorselOperator(loops, manager=manager, processes=True))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_ctrl_c_ends_a_call_in_its_middle() -> None:
    script = """
import os, signal, threading
import pyarrow as pa
from sabot.slots import Morsel, Pipeline, TaskSlotManager
manager = TaskSlotManager(num_slots=1)
workers = manager.worker_pool()
def loops(rows):
    while True: pass
def interrupt():
    while not workers.pids():
        pass
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    manager.execute_morsels([Morsel(pa.record_batch({"a": [1]}))], Pipeline([("worker", loops, None)], workers=workers))
except KeyboardInterrupt:
    print("interrupted")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "interrupted\n", "")
