"""Jobs whose functions run in workers: user code stays out of the agents, and may fail, die or never end there."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot
from sabot.errors import LimitReached, TaskFailed, UsageError
from sabot.wire.agent_pb2 import ReleaseJobRequest

from .in_process import WAIT_S, InProcessCluster

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers are spared what this module imports

TABLE = pa.table({"v": pa.array(range(1000), pa.int64())})
PIDS = pa.schema([("pid", pa.int64())])


def pid_of(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch({"pid": pa.array([os.getpid()] * batch.num_rows, pa.int64())})


def test_functions_run_in_workers_that_end_with_their_job(cluster: InProcessCluster) -> None:
    pids = set(cluster.connect().from_table(TABLE).map_batches(pid_of, schema=PIDS).to_table()["pid"].to_pylist())
    assert os.getpid() not in pids and 1 <= len(pids) <= 2
    cluster.wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    again = set(cluster.connect().from_table(TABLE).map_batches(pid_of, schema=PIDS).to_table()["pid"].to_pylist())
    assert not pids & again


def test_functions_run_in_the_agent_where_the_user_wants_it(cluster: InProcessCluster) -> None:
    answer = cluster.connect().from_table(TABLE).map_batches(pid_of, schema=PIDS, processes=False).to_table()
    assert set(answer["pid"].to_pylist()) == {os.getpid()}


class Unfit(Exception):
    pass


def test_exception_arrives_as_itself_with_all_places_named(cluster: InProcessCluster) -> None:
    def refuse(batch: pa.RecordBatch) -> pa.RecordBatch:
        raise Unfit("no such row")

    with pytest.raises(Unfit, match="no such row") as raised:
        cluster.connect().from_table(TABLE).map_batches(refuse, schema=TABLE.schema).run()
    notes = "\n".join(raised.value.__notes__)
    assert "in refuse" in notes and "morsel=0" in notes and "agent=agent-" in notes and "stage=0" in notes


def test_answer_of_other_columns_is_refused(cluster: InProcessCluster) -> None:
    with pytest.raises(UsageError, match=r"map_batches: pid_of returned columns \(pid: int64\)"):
        cluster.connect().from_table(TABLE).map_batches(pid_of, schema=TABLE.schema).run()


DEATHS: dict[str, tuple[Callable[[], object], str]] = {
    "exit": (lambda: os._exit(9), "ended with exit code 9"),
    "kill": (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL"),
}


@pytest.mark.parametrize("death", DEATHS)
def test_function_that_kills_its_process_fails_its_job_and_no_agent(cluster: InProcessCluster, death: str) -> None:
    die, text = DEATHS[death]

    def dies(batch: pa.RecordBatch) -> None:
        die()

    session = cluster.connect()
    with pytest.raises(TaskFailed, match=text) as raised:
        session.from_table(TABLE).map_batches(dies, schema=TABLE.schema).run()
    assert raised.value.facts["function"] == "dies"
    assert session.from_table(TABLE).map_batches(lambda batch: batch).count_rows() == 1000


def never_ends(batch: pa.RecordBatch) -> None:
    while True:
        pass


def test_time_limit_of_a_function_ends_its_job(cluster: InProcessCluster) -> None:
    with pytest.raises(LimitReached, match="ran longer than its limit of 100 ms"):
        cluster.connect().from_table(TABLE).map_batches(never_ends, schema=TABLE.schema, timeout_s=0.1).run()


def test_cancelled_job_ends_its_functions_in_mid_call(cluster: InProcessCluster, tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def never_ends_here(batch: pa.RecordBatch) -> None:
        note.with_suffix(".part").write_text(str(os.getpid()))
        note.with_suffix(".part").rename(note)
        never_ends(batch)

    session = cluster.connect()
    ended: list[BaseException] = []

    def run() -> None:
        try:
            session.from_table(TABLE).map_batches(never_ends_here, schema=TABLE.schema).run()
        except BaseException as error:
            ended.append(error)

    runner = threading.Thread(target=run)
    runner.start()
    cluster.wait_until(note.exists)
    pid = int(note.read_text())
    [job_id] = cluster.agents[0].driver._runs
    cluster.on_loop(cluster.agents[0].driver.release(ReleaseJobRequest(job_id=job_id)))
    runner.join(WAIT_S)
    assert isinstance(ended[0], sabot.errors.JobCancelled)
    cluster.wait_until(lambda: not psutil.pid_exists(pid))


def test_modules_of_a_session_are_imported_by_its_functions_only(cluster: InProcessCluster, tmp_path: Path) -> None:
    (tmp_path / "mine_alone.py").write_text("def add(column):\n    return [v + 1 for v in column.to_pylist()]\n")

    def use(batch: pa.RecordBatch) -> pa.RecordBatch:
        import mine_alone  # type: ignore[import-not-found]

        return pa.record_batch({"v": pa.array(mine_alone.add(batch["v"]), pa.int64())})

    address = cluster.agents[0].member.control_address
    with sabot.connect(address, progress=False, py_modules=[tmp_path / "mine_alone.py"]) as session:
        answer = session.from_table(TABLE).map_batches(use, schema=TABLE.schema).to_table()
    assert sorted(answer["v"].to_pylist()) == list(range(1, 1001))
    with pytest.raises(ModuleNotFoundError, match="mine_alone"):
        cluster.connect().from_table(TABLE).map_batches(use, schema=TABLE.schema).run()


def test_function_is_not_opened_by_an_agent(cluster: InProcessCluster, tmp_path: Path) -> None:
    here = os.getpid()

    class Tells:
        """Unpickles where it is opened, and must be opened in workers only."""

        def __reduce__(self) -> tuple[object, ...]:
            return _opened, (here,)

        def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
            return batch

    pq.write_table(TABLE, tmp_path / "t.parquet")
    data = cluster.connect().read_parquet(tmp_path / "t.parquet")
    assert data.map_batches(Tells(), schema=TABLE.schema).count_rows() == 1000
    with pytest.raises(UsageError, match="opened in the agent"):
        data.map_batches(Tells(), schema=TABLE.schema, processes=False).run()


def _opened(agent_pid: int) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    if os.getpid() == agent_pid:
        raise RuntimeError("opened in the agent")
    return lambda batch: batch
