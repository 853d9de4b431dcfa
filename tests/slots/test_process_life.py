"""Slots and the life of their process: exit, Ctrl-C, fork. Each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PRELUDE = """
import os, signal, sys, threading
import pyarrow as pa
from sabot.errors import UsageError
from sabot.slots import Morsel, TaskSlotManager
batch = pa.record_batch({"a": list(range(100))})
manager = TaskSlotManager(num_slots=2)
"""


def run_python(script: str, *, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PRELUDE + script],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.parametrize(
    "script",
    [
        "manager.execute_morsels([Morsel(batch)], lambda rows: rows)",
        "[manager.enqueue_morsel(Morsel(batch), lambda rows: rows) for _ in range(1000)]",
        "keep = globals().copy(); manager.enqueue_morsel(Morsel(batch), lambda rows: keep and None)",
        "del manager",
        "manager.call_in_slot(lambda: manager.execute_morsels([Morsel(batch)], print))",
        "pool = manager.native_pool; manager.call_in_slot(int); del manager",
        "sys.exit(0)",
    ],
)
def test_exit_with_live_slots_neither_hangs_nor_crashes(script: str) -> None:
    ended = run_python(script)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_plan_after_pyarrow_was_given_fewer_threads_lets_no_more_take_part() -> None:
    """Acero sizes what threads have of their own by that number, and counts them up to the one of its first plan."""
    script = """
from pyarrow import acero
keys = pa.table({"k": pa.array(range(300_000))})
def join():
    side = acero.Declaration("table_source", acero.TableSourceNodeOptions(keys))
    options = acero.HashJoinNodeOptions("inner", ["k"], ["k"], ["k"], [])
    return acero.Declaration("hashjoin", options, [side, side])
manager.run_plan(join())
pa.set_io_thread_count(1)
with TaskSlotManager(7) as many:
    for _ in range(3):
        assert many.run_plan(join()).num_rows == 300_000
manager.shutdown()
"""
    ended = run_python(script)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_fault_in_a_slot_is_told_by_faulthandler() -> None:
    ended = run_python("import ctypes; manager.call_in_slot(lambda: ctypes.string_at(8))")
    assert ended.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in ended.stderr and "string_at" in ended.stderr


def test_ctrl_c_ends_a_wait_after_the_morsels_that_run() -> None:
    script = """
begun = threading.Event()
released = threading.Event()
ran = []
def hold(rows):
    ran.append(1)
    begun.set()
    released.wait(30)
    return rows
def interrupt():
    begun.wait(30)
    os.kill(os.getpid(), signal.SIGINT)
    while manager.get_queue_depth():  # the interrupt has skipped what waited
        pass
    released.set()
threading.Thread(target=interrupt).start()
try:
    manager.execute_morsels([Morsel(batch, row, 1) for row in range(100)], hold)
except KeyboardInterrupt:
    print("interrupted after", len(ran) <= 2)
print(len(manager.execute_morsels([Morsel(batch)], lambda rows: rows)))
"""
    ended = run_python(script)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "interrupted after True\n1\n", "")


def test_ctrl_c_ends_the_wait_of_a_shutdown_which_can_be_repeated() -> None:
    script = """
begun, released = threading.Event(), threading.Event()
held = manager.call_in_slot(lambda: (begun.set(), released.wait(30)))
def interrupt():
    begun.wait(30)
    while True:
        try:
            manager.call_in_slot(int)
        except UsageError:  # the shutdown has begun
            break
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    manager.shutdown()
except KeyboardInterrupt:
    print("interrupted", held.done())
released.set()
manager.shutdown()
print(manager.get_num_slots())
"""
    ended = run_python(script)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "interrupted False\n0\n", "")


def test_signals_are_left_to_the_main_thread() -> None:
    script = """
blocked = manager.call_in_slot(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [])).result()
print(signal.SIGINT in blocked, signal.SIGTERM in blocked, signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    assert run_python(script).stdout == "True True set()\n"


def test_use_after_fork_is_a_usage_error_and_the_child_can_exit() -> None:
    script = """
manager.execute_morsels([Morsel(batch)], lambda rows: rows)
child = os.fork()
if child == 0:
    uses = [
        lambda: manager.execute_morsels([Morsel(batch)], lambda rows: rows),
        lambda: manager.enqueue_morsel(Morsel(batch), lambda rows: rows),
        lambda: manager.call_in_slot(int),
        lambda: manager.add_slots(1),
        lambda: manager.get_num_slots(),
        lambda: manager.shutdown(),
        lambda: manager.native_pool.shutdown(True),
    ]
    for use in uses:
        try:
            use()
        except UsageError as error:
            assert "forked" in str(error), error
        else:
            os._exit(3)
    mine = TaskSlotManager(num_slots=1)
    assert mine.execute_morsels([Morsel(batch)], lambda rows: rows)[0].batch.num_rows == 100
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(manager.execute_morsels([Morsel(batch)], lambda rows: rows)[0].batch.num_rows)
"""
    ended = run_python(script)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("7\n100\n", "", 0)


def test_idle_slots_use_no_cpu() -> None:
    script = """
import resource
many = TaskSlotManager(num_slots=16)
many.execute_morsels([Morsel(batch, row, 1) for row in range(100)], lambda rows: rows)
while many.native_pool.parked_slots() < 16:
    pass
before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
signal.sigtimedwait([signal.SIGUSR1], 0.5)
print(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - before < 0.005)
print(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - switches < 8)
"""
    assert run_python(script).stdout == "True\nTrue\n"
