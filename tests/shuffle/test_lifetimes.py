"""What ends in the middle, ends: dropped objects, interpreters, killed writers. Each case has a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from sabot.errors import LimitReached
from sabot.shuffle import ShuffleTransport

MakeTransport = Callable[..., ShuffleTransport]
ROOT = Path(__file__).parents[2]
PREAMBLE = """
    import sys
    import pyarrow as pa
    from sabot.shuffle import ShuffleTransport
    from sabot.slots import TaskSlotManager

    def rows_of_python():
        values = pa.Array.from_buffers(pa.int64(), 3, [None, pa.py_buffer(bytearray(24))])
        return pa.RecordBatch.from_arrays([values], ["v"])
"""


def code_for(script: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(PREAMBLE) + textwrap.dedent(script)]


def output_of(script: str) -> str:
    """What the script prints; it must end well within the time."""
    done = subprocess.run(code_for(script), check=False, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_dropping_a_transport_while_rows_of_python_are_on_their_way_does_not_hang() -> None:
    output = output_of("""
        late, sender = ShuffleTransport(open_wait_s=0.5), ShuffleTransport()
        sender.start_shuffle("s", 2, [sender.address, late.address])
        for _ in range(8):
            sender.send_partition("s", 1, rows_of_python())
        del sender
        print("dropped")
        late.close()
    """)
    assert output == "dropped\n"


def test_dropping_a_server_that_holds_rows_and_processors_does_not_hang() -> None:
    output = output_of("""
        slots = TaskSlotManager(num_slots=1)
        transport = ShuffleTransport(slot_pool=slots.native_pool)
        transport.start_shuffle("s", 1, [transport.address], processor=lambda rows: rows)
        transport.send_partition("s", 0, rows_of_python())
        transport.register_partition("r", 0, rows_of_python())
        del transport
        slots.shutdown()
        print("dropped")
    """)
    assert output == "dropped\n"


def test_interpreter_ends_with_transports_open_and_rows_on_their_way() -> None:
    output = output_of("""
        late, sender = ShuffleTransport(open_wait_s=0.5), ShuffleTransport()
        sender.start_shuffle("s", 2, [sender.address, late.address])
        for _ in range(8):
            sender.send_partition("s", 1, rows_of_python())
        print("ending")
    """)
    assert output == "ending\n"


def test_ending_a_shuffle_that_others_wait_for_does_not_hang() -> None:
    output = output_of("""
        import threading
        from sabot.errors import SabotError

        slots = TaskSlotManager(num_slots=1)
        transport = ShuffleTransport(slot_pool=slots.native_pool)

        def wait(name):
            try:
                transport.receive_partition(name, 0)
            except SabotError:
                pass

        for round in range(30):
            name = f"s{round}"
            transport.start_shuffle(name, 1, [transport.address, "127.0.0.1:1"], processor=lambda rows: None)
            transport.send_partition(name, 0, rows_of_python())
            waiting = [threading.Thread(target=wait, args=(name,)) for _ in range(4)]
            for thread in waiting:
                thread.start()
            transport.stats()
            transport.end_shuffle(name)
            for thread in waiting:
                thread.join()
        assert transport.stats()["stored_bytes"] == 0
        transport.close()
        slots.shutdown()
        print("ended")
    """)
    assert output == "ended\n"


def test_rows_of_a_writer_that_is_killed_are_never_read(make_transport: MakeTransport) -> None:
    receiver = make_transport(open_wait_s=20.0)
    script = f"""
        transport = ShuffleTransport()
        agents = ["{receiver.address}", transport.address]
        transport.start_shuffle("s", 2, agents)
        print(transport.address, flush=True)
        while True:
            transport.send_partition("s", 0, rows_of_python())
    """
    with subprocess.Popen(code_for(script), cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        receiver.start_shuffle("s", 2, [receiver.address, writer.stdout.readline().strip()])
        while receiver.stats()["chunks_received"] < 10:
            assert writer.poll() is None
        writer.kill()
    with pytest.raises(LimitReached, match="not every sender"):
        receiver.receive_partition("s", 0, timeout_s=0.2)
