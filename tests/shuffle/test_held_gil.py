"""An agent whose Python stands still lives on: its native half answers, receives and is ended on time."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from sabot.shuffle import ShuffleClient
from tests.shuffle import wire

ROOT = Path(__file__).parents[2]
HELD_S = 3
PROGRAM = f"""
    import ctypes, sys, threading
    from sabot.shuffle import ShuffleServer
    from sabot.slots import Morsel, TaskSlotManager
    import pyarrow as pa

    slots = TaskSlotManager(num_slots=1)
    server = ShuffleServer(slot_pool=slots.native_pool)
    server.start_shuffle("s", 1, [server.address])
    rows = pa.record_batch({{"a": [1]}})

    def hold(batch):
        print(server.address, flush=True)
        ctypes.PyDLL(None).sleep({HELD_S})  # keeps the GIL, as a C extension does that does not give it up
        return batch

    sys.stdin.readline()
    slots.execute_morsels([Morsel(batch=rows, num_rows=1)], hold)
    print("done", flush=True)
    server.close()
    slots.shutdown()
"""


@pytest.fixture
def holder() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process, and the address of its server, that holds its GIL for some seconds from now on."""
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        print(file=process.stdin, flush=True)
        yield process, process.stdout.readline().strip()
        process.kill()


def test_ping_is_answered_at_once_while_a_function_holds_the_gil(holder: tuple[subprocess.Popen[str], str]) -> None:
    process, address = holder
    begun = time.monotonic()
    took = []
    with ShuffleClient() as client:
        client.ping(address)  # connects
        while time.monotonic() < begun + HELD_S / 2:
            asked = time.monotonic()
            client.ping(address)
            took.append(time.monotonic() - asked)
    took.sort()
    assert took[len(took) // 2] < 0.05, "the median, since others use this machine's cores too"
    assert time.monotonic() - begun < HELD_S, "it was still held"
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n"


def test_rows_are_received_while_a_function_holds_the_gil(holder: tuple[subprocess.Popen[str], str]) -> None:
    process, address = holder
    begun = time.monotonic()
    rows = pa.record_batch({"a": pa.array(range(1000), pa.int64())})
    chunks = [wire.chunk("s", rows, sequence=i) for i in range(20)]
    acks = wire.put(address, [*((header, rows) for header in chunks), (wire.manifest(chunks), None)], rows.schema)
    assert [ack.code for ack in acks] == [0] * 21
    assert time.monotonic() - begun < HELD_S, "it was still held"
    assert process.poll() is None
