"""The check that every test leaves nothing behind can itself fail, for each kind of thing."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tests.leftovers import Leftovers


def found_after(before: Leftovers) -> str:
    """The message of the check made at once, without giving things time to go."""
    with pytest.raises(pytest.fail.Exception) as failure:
        before.check(settle_s=0)
    return str(failure.value)


def test_thread_left_running_is_found() -> None:
    before = Leftovers.now()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left-running")
    thread.start()
    try:
        assert "threads: left-running" in found_after(before)
    finally:
        stop.set()
        thread.join()


def test_socket_left_open_is_found() -> None:
    before = Leftovers.now()
    with socket.socket():
        assert "socket:[" in found_after(before)


def test_temporary_file_left_is_found() -> None:
    before = Leftovers.now()
    with tempfile.NamedTemporaryFile(prefix="spill-") as file:
        assert Path(file.name).name in found_after(before)


def test_child_process_left_is_found() -> None:
    before = Leftovers.now()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert f"processes: {child.pid} " in found_after(before)


def test_orphan_whose_parent_is_gone_is_found() -> None:
    before = Leftovers.now()
    grandchild = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'input()']).pid, flush=True)"
    with subprocess.Popen([sys.executable, "-c", grandchild], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.wait()
        assert f"processes: {pid} " in found_after(before)


def test_thing_that_is_on_its_way_out_is_waited_for() -> None:
    before = Leftovers.now()
    thread = threading.Timer(0.05, lambda: None)
    thread.start()
    before.check()
