"""A job on three real agents, of which one is struck at each moment of a shuffle in each way: the answer is exact."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from sabot.dataflow import sorting

from .held_job import ANSWERED_S, ROWS, VICTIM, Blow, Held, Moment, Trio, files, held_by, holding, until
from .held_work import BROADCAST_JOIN, GROUPING, SORT, Work


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SABOT_JOBS_PEER_DEADLINE_S", "1")
        environment.setenv("SABOT_JOBS_SPLIT_BYTES", str(16 * 1024))  # a task for each row group
        environment.setattr(sorting, "SORTED_BY_ONE_BYTES_MAX", -1)
        agents = Trio(tmp_path_factory.mktemp("trio"))
        yield agents
        agents.close()


@pytest.fixture
def trio(cluster: Trio) -> Iterator[Trio]:
    """The cluster with a victim, which the end of the test ends."""
    cluster.start_victim()
    yield cluster
    cluster.victim.close()


_MOMENTS: tuple[Moment, ...] = ("send", "transfer", "barrier", "take", "end")
_BLOWS: tuple[Blow, ...] = ("killed", "frozen", "restarted", "cut")


@pytest.mark.parametrize(
    ("work", "moment", "blow"),
    [
        *((GROUPING, moment, blow) for moment in _MOMENTS for blow in _BLOWS),
        *((SORT, moment, "killed") for moment in _MOMENTS),
        *((BROADCAST_JOIN, moment, "killed") for moment in ("send", "take", "end")),
    ],
    ids=lambda value: value.name if isinstance(value, Work) else value,
)
def test_agent_struck_at_any_moment_leaves_the_answer_exact(
    trio: Trio, tmp_path: Path, work: Work, moment: Moment, blow: Blow
) -> None:
    job = Held(trio, tmp_path, moment, lambda rows: work.of(trio.session, rows))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(job.data.run)
        until(job.reached)
        trio.strike(blow)
        job.go_on()
        with running.result(ANSWERED_S) as result:
            work.check(result)
            assert set(result.stats.agents_lost) <= {VICTIM}
            assert blow == "cut" or result.stats.agents_lost == (VICTIM,)
    trio.thaw()
    until(trio.all_free)


@pytest.mark.parametrize("fickle", [False, True])
def test_replay_of_a_function_stands_where_its_rows_are_the_same_and_else_all_begins_anew(
    trio: Trio, tmp_path: Path, fickle: bool
) -> None:
    """The readers hold when the victim dies: what was sent to it is sent again by a stage that calls a function."""

    def labelled(batch: pa.RecordBatch) -> pa.RecordBatch:
        import secrets

        labels = [secrets.token_hex(4) if fickle else str(number) for number in batch["v"].to_pylist()]
        return batch.set_column(0, "k", pa.array(labels))

    schema = pa.schema([("k", pa.string()), ("v", pa.int64())])
    gate = tmp_path / "gate"
    gate.mkdir()
    hold = holding(gate, {trio.victim.process.pid}, from_call=1)
    source = trio.session.read_parquet(files(tmp_path)).map_batches(labelled, schema=schema, processes=False)
    data = held_by(source.repartition("k"), hold)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(data.run)
        until(lambda: len(list(gate.glob("held by *"))) == 1)
        trio.strike("killed")
        (gate / "go on").touch()
        with running.result(ANSWERED_S) as result:
            assert sorted(result.to_table()["v"].to_pylist()) == list(range(ROWS))
            assert result.receipt.exact and result.stats.agents_lost == (VICTIM,)
            senders, readers = result.stats.stages
            # Replays alone, or replays and then all again, readers that were done included.
            assert (senders.tasks_redone > senders.tasks_total) == fickle
            assert readers.tasks_redone >= 1
    until(trio.all_free)
