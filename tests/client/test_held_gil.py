"""A client that holds its GIL longer than every deadline keeps its job: its stream lives in a thread of gRPC's core."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.agent.processes import Agents

from ..jobs.held_job import until

HELD_S = 5
CLIENT = f"""
import ctypes, sys, threading
import pyarrow as pa, sabot

table = pa.table({{"k": [i % 7 for i in range(700)], "v": list(range(700))}})

def slow(batch):
    threading.Event().wait(0.1)
    return batch

with sabot.connect(sys.argv[1], progress=False) as session:
    data = session.from_table(table).repartition("v", num_partitions=20).map_batches(slow, schema=table.schema)
    job = data.group_by("k").aggregate([("v", "sum")]).submit()
    while not job.progress.stages or not job.progress.stages[0].tasks_done:
        threading.Event().wait(0.01)
    assert not job.done()
    print("holds", flush=True)
    ctypes.PyDLL(None).sleep({HELD_S})  # with the GIL
    with job.result(60) as result:
        expected = table.group_by("k").aggregate([("v", "sum")]).sort_by("k")
        assert result.to_table().sort_by("k").select(["k", "v_sum"]).equals(expected)
        assert not result.stats.agents_lost and all(stage.tasks_redone == 0 for stage in result.stats.stages)
print("done", flush=True)
"""


def test_client_that_holds_its_gil_beyond_every_deadline_keeps_its_job(tmp_path: Path) -> None:
    deadlines = {
        "SABOT_JOBS_PEER_DEADLINE_S": "1.5",
        "SABOT_JOBS_TAKEOVER_S": "1.5",
        "SABOT_JOBS_UPLOAD_LEASE_S": "1.5",
        "SABOT_SHUFFLE_STREAM_TIMEOUT_S": "1.5",
        "SABOT_SHUFFLE_STREAM_IDLE_S": "1.5",
    }
    agents = Agents(tmp_path)
    try:
        first = agents.start("first", environment=deadlines)
        agents.start("second", "--join", first.control, environment=deadlines)
        until(lambda: len(first.members()) == 2)
        ended = subprocess.run(
            [sys.executable, "-c", CLIENT, first.control], capture_output=True, text=True, timeout=90, check=False
        )
        assert (ended.returncode, ended.stdout.split()) == (0, ["holds", "done"]), ended.stderr
    finally:
        agents.close()
