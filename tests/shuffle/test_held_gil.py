"""An agent whose Python stands still lives on: its native half answers, receives and is ended on time."""

from __future__ import annotations

import itertools
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
PINGS = 100
PROGRAM = """
    import ctypes, sys, threading
    from sabot.shuffle import ShuffleServer
    from sabot.slots import Morsel, TaskSlotManager
    import pyarrow as pa

    slots = TaskSlotManager(num_slots=1)
    server = ShuffleServer(slot_pool=slots.native_pool)
    server.start_shuffle("s", 1, [server.address])
    rows = pa.record_batch({"a": [1]})

    def hold(batch):
        print(server.address, flush=True)
        # Keeps the GIL until there is something to read, as a C extension does that does not give it up.
        ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)
        return batch

    slots.execute_morsels([Morsel(batch=rows, num_rows=1)], hold)
    print("done", flush=True)
    server.close()
    slots.shutdown()
"""


@pytest.fixture
def holder() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds its GIL, and the address of its server; it gives the GIL up when it is told, and ends."""
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def let_go(process: subprocess.Popen[str]) -> None:
    """It held the GIL until here: only now does its Python go on."""
    assert process.stdin is not None and process.stdout is not None
    assert process.poll() is None
    print(file=process.stdin, flush=True)
    assert process.stdout.readline() == "done\n"


def test_ping_is_answered_at_once_while_a_function_holds_the_gil(holder: tuple[subprocess.Popen[str], str]) -> None:
    process, address = holder
    with ShuffleClient() as client:
        client.ping(address)  # connects
        asked = [time.monotonic()]
        for _ in range(PINGS):
            client.ping(address)
            asked.append(time.monotonic())
    took = sorted(after - before for before, after in itertools.pairwise(asked))
    assert took[PINGS // 2] < 0.05, "the median, since others use this machine's cores too"
    let_go(process)


def test_rows_are_received_while_a_function_holds_the_gil(holder: tuple[subprocess.Popen[str], str]) -> None:
    process, address = holder
    rows = pa.record_batch({"a": pa.array(range(1000), pa.int64())})
    chunks = [wire.chunk("s", rows, sequence=i) for i in range(20)]
    acks = wire.put(address, [*((header, rows) for header in chunks), (wire.manifest(chunks), None)], rows.schema)
    assert [ack.code for ack in acks] == [0] * 21
    let_go(process)
