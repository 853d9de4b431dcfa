"""Where the system starts no more threads, what needs one fails by name, and the process goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# No stack finds room: what is mapped already is all there may be, and a little for small things.
HEAD = """
import resource, sys
import pyarrow as pa
from sabot.errors import LimitReached
from sabot.native._native import Ledger
from sabot.shuffle import ShuffleServer, ShuffleTransport

def no_more_threads():
    used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, ((used << 10) + (4 << 20), resource.RLIM_INFINITY))

"""
SPILL = """
no_more_threads()
try:
    ShuffleServer(ledger=Ledger(64 << 20), spill_dirs=[sys.argv[1]])
except LimitReached as error:
    print(error)
"""

LINK = """
receiver, sender = ShuffleTransport(), ShuffleTransport()
for transport in (receiver, sender):
    transport.start_shuffle("s", 2, [sender.address, receiver.address])
rows = pa.record_batch({"number": [1, 2, 3]})
no_more_threads()
try:
    sender.send_partition("s", 1, rows)
    sender.finish_shuffle("s")
    sender.receive_partition("s", 0, timeout_s=20)
except LimitReached as error:
    print(error, flush=True)
import os
os._exit(0)  # gRPC's own threads may find no room either
"""


@pytest.mark.parametrize("body", [SPILL, LINK], ids=["spill", "link"])
def test_thread_that_cannot_start_is_a_limit_reached_by_name(body: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + body, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "no more threads" in done.stdout) == (0, True), done.stdout + done.stderr
