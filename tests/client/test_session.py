"""What a session does around a job: the plan it sends, the failures it raises, what it frees."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from sabot.client.connect import connect
from sabot.client.file_source import absolute_paths
from sabot.client.session import Session
from sabot.dataflow.stage import TableInput, TablePiece
from sabot.errors import PeerLost, UsageError
from sabot.wire import agent_pb2
from sabot.wire.failure import to_failure
from tests.client.plain_agent import Events, PlainAgent
from tests.client.plain_server import PlainServer, sum_of

TABLE = pa.table({"x": pa.array([3, 1, 2], pa.int64())})


@pytest.fixture
def session(plain_agent: PlainAgent, server: PlainServer) -> Iterator[Session]:
    """A session with a control server and a Flight server that together answer as one agent."""
    plain_agent.agent.flight_address = server.address
    with connect(plain_agent.agent.control_address) as connected:
        yield connected


def one_partition(server: PlainServer) -> Events:
    """A job that ends with TABLE as its only partition."""
    (batch,) = TABLE.to_batches()
    server.parts["t"] = (TABLE.schema, [batch])
    part = agent_pb2.ResultPartition(
        partition=0, flight_address=server.address, ticket="t", rows=3, content_sum=sum_of(batch), agent_id="plain"
    )
    yield agent_pb2.JobEvent(accepted=agent_pb2.JobAccepted())
    yield agent_pb2.JobEvent(progress=agent_pb2.JobProgress(stages=[agent_pb2.StageProgress(label="scan")]))
    yield agent_pb2.JobEvent(finished=agent_pb2.JobFinished(partitions=[part], elapsed_s=0.5))


def test_a_table_is_uploaded_and_its_pieces_are_in_the_plan(
    session: Session, plain_agent: PlainAgent, server: PlainServer
) -> None:
    plain_agent.job = lambda: one_partition(server)
    with session.from_table(TABLE).run() as result:
        assert result.to_table() == TABLE
    (plan,) = plain_agent.plans
    (stage,) = plan.stages
    assert isinstance(stage.input, TableInput)
    piece = TablePiece(index=0, flight_address=server.address, rows=3)
    assert plan.uploads == {stage.input.table_id: (piece,)}
    assert list(server.uploads) == [("sabot", "publish", f"{plan.job_id}/upload/{stage.input.table_id}", "0")]


def test_a_result_can_be_read_again_until_it_is_closed(
    session: Session, plain_agent: PlainAgent, server: PlainServer
) -> None:
    plain_agent.job = lambda: one_partition(server)
    result = session.from_table(TABLE).run()
    assert result.to_table() == TABLE
    assert pa.table(result) == TABLE
    assert result.num_rows == 3
    assert result.receipt.result_rows == 3
    assert result.stats.elapsed_s == 0.5
    result.close()
    with pytest.raises(UsageError, match="it was closed"):
        result.to_table()


def test_a_reader_that_was_begun_before_the_close_ends_with_a_usage_error(
    session: Session, plain_agent: PlainAgent, server: PlainServer
) -> None:
    plain_agent.job = lambda: one_partition(server)
    result = session.from_table(TABLE).run()
    batches = result.to_batches()
    result.close()
    with pytest.raises(UsageError, match="it was closed"):
        next(batches)


def test_closing_the_session_closes_and_frees_its_results(
    session: Session, plain_agent: PlainAgent, server: PlainServer
) -> None:
    plain_agent.job = lambda: one_partition(server)
    result = session.from_table(TABLE).run()
    session.close()
    assert plain_agent.released == [plain_agent.plans[0].job_id]
    with pytest.raises(UsageError, match="session was closed"):
        result.to_batches()


def test_a_collected_result_is_freed_once(session: Session, plain_agent: PlainAgent, server: PlainServer) -> None:
    plain_agent.job = lambda: one_partition(server)
    result = session.from_table(TABLE).run()
    result.close()
    del result
    other = session.from_table(TABLE).run()
    del other
    gc.collect()
    session.close()
    assert plain_agent.released == [plan.job_id for plan in plain_agent.plans]


def test_a_failed_job_raises_the_exception_of_the_user(session: Session, plain_agent: PlainAgent) -> None:
    class Unlucky(Exception):
        pass

    error = Unlucky("row 7")
    error.add_note("agent=b stage=1 task=2")
    plain_agent.job = lambda: iter([agent_pb2.JobEvent(failed=to_failure(error))])
    with pytest.raises(Exception, match="row 7") as caught:
        session.from_table(TABLE).run()
    assert type(caught.value).__name__ == "Unlucky"
    assert "agent=b stage=1 task=2" in caught.value.__notes__


def test_a_stream_that_ends_without_a_verdict_is_a_lost_peer(session: Session, plain_agent: PlainAgent) -> None:
    plain_agent.job = lambda: iter([agent_pb2.JobEvent(accepted=agent_pb2.JobAccepted())])
    with pytest.raises(PeerLost, match="without saying how it went"):
        session.from_table(TABLE).run()


@pytest.fixture(params=[True, False], ids=["as Python has it", "where waits go on after signals, as Polars has it"])
def interrupts(request: pytest.FixtureRequest) -> Iterator[None]:
    """How SIGINT meets a wait of the main thread."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.siginterrupt(signal.SIGINT, request.param)
    yield
    signal.siginterrupt(signal.SIGINT, True)


@pytest.mark.usefixtures("interrupts")
def test_control_c_cancels_the_job(session: Session, plain_agent: PlainAgent) -> None:
    main = threading.get_ident()

    def interrupt() -> None:
        if plain_agent.started.wait(30):
            signal.pthread_kill(main, signal.SIGINT)  # as a terminal does: the main thread is woken

    plain_agent.lingers = True
    presser = threading.Thread(target=interrupt)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        session.from_table(TABLE).run()
    presser.join()
    assert plain_agent.cancelled.wait(10)


def test_an_upload_that_fails_leaves_nothing_with_the_agents(
    session: Session, plain_agent: PlainAgent, server: PlainServer
) -> None:
    server.refusal = "[sabot:5]full[/sabot]"
    with pytest.raises(Exception, match="full"):
        session.from_table(TABLE).run()
    assert len(plain_agent.ended) == 1
    assert plain_agent.plans == []


def test_a_function_that_cannot_be_pickled_is_a_usage_error_before_any_upload(
    session: Session, server: PlainServer
) -> None:
    lock = threading.Lock()

    def locked(batch: pa.RecordBatch) -> pa.RecordBatch:
        with lock:
            return batch

    with pytest.raises(UsageError, match="cannot be pickled"):
        session.from_table(TABLE).map_batches(locked, schema=TABLE.schema).run()
    assert server.uploads == {}


def test_from_table_takes_whatever_has_an_arrow_stream(session: Session) -> None:
    (batch,) = TABLE.to_batches()
    reader = pa.RecordBatchReader.from_batches(TABLE.schema, [batch])
    for source in (TABLE, batch, reader):
        assert session.from_table(source).schema == TABLE.schema
    with pytest.raises(UsageError, match="not list"):
        session.from_table([1, 2])


def test_relative_paths_are_taken_from_the_directory_of_the_client(tmp_path: Path) -> None:
    assert absolute_paths("a/*.parquet", tmp_path) == [f"{tmp_path}/a/*.parquet"]
    assert absolute_paths([Path("/x/y"), "../z"], tmp_path) == ["/x/y", f"{tmp_path}/../z"]


@pytest.mark.parametrize("paths", [[], "", [""], [3], None, b"x", [b"x"]])
def test_what_is_no_path_is_a_usage_error(paths: object, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="path"):
        absolute_paths(paths, tmp_path)  # type: ignore[arg-type]


def test_a_program_that_closes_nothing_ends_quietly_and_frees_its_results(
    plain_agent: PlainAgent, server: PlainServer
) -> None:
    plain_agent.agent.flight_address = server.address
    plain_agent.job = lambda: one_partition(server)
    program = (
        "import pyarrow as pa, sabot; session = sabot.connect(__import__('sys').argv[1]); "
        "result = session.from_table(pa.table({'x': [3, 1, 2]})).run(); print(result)"
    )
    command = [sys.executable, "-c", program, plain_agent.agent.control_address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "<sabot.Result of 3 rows, 1 partitions>\n"
    assert plain_agent.released == [plain_agent.plans[0].job_id]
