"""So many jobs run at a time on a coordinator; the others wait in order of arrival, say so, and may be ended there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from sabot.agent.jobs.admission import Admission, Place
from sabot.client.job import Job
from sabot.client.session import Session
from sabot.errors import JobCancelled, LimitReached, PeerRefused, UsageError
from sabot.wire.agent_pb2 import CancelJobRequest, ListJobsRequest

from .in_process import WAIT_S, InProcessCluster

TABLE = pa.table({"v": pa.array(range(100), pa.int64())})
GO_ON = threading.Event()


@pytest.fixture
def narrow() -> Iterator[InProcessCluster]:
    """Two agents that coordinate one job at a time, and keep uploads for a second."""
    GO_ON.clear()
    with InProcessCluster(2, slots=1, **{"jobs.running_max": 1, "jobs.upload_lease_s": 1}) as running:
        try:
            yield running
        finally:
            GO_ON.set()
        running.check_nothing_held()


def held_up(batch: pa.RecordBatch) -> pa.RecordBatch:
    GO_ON.wait(WAIT_S)
    return batch


def submit_held(session: Session) -> Job:
    """A job that runs until GO_ON is set."""
    job = session.from_table(TABLE).map_batches(held_up, schema=TABLE.schema, processes=False).submit()
    assert isinstance(job, Job)
    return job


def states(cluster: InProcessCluster, agent: int = 0) -> list[tuple[str, str, int]]:
    """Of each job that the agent coordinates its id, its state, and how many are ahead of it."""

    async def look() -> list[tuple[str, str, int]]:
        jobs = cluster.agents[agent].driver.list_jobs(ListJobsRequest()).jobs
        return [(job.job_id, job.state, job.jobs_ahead) for job in jobs]

    return cluster.on_loop(look())


def wait_for(cluster: InProcessCluster, count: int, state: str, agent: int = 0) -> None:
    driver = cluster.agents[agent].driver
    cluster.wait_until(lambda: sum(job.state == state for job in driver.list_jobs(ListJobsRequest()).jobs) == count)


def test_jobs_run_in_order_of_arrival_and_no_more_than_may(narrow: InProcessCluster) -> None:
    session = narrow.connect()
    jobs = [submit_held(session)]
    for queued in (1, 2):
        wait_for(narrow, 1, "running")
        jobs.append(submit_held(session))
        wait_for(narrow, queued, "queued")
    assert states(narrow) == [
        (jobs[0].job_id, "running", 0),
        (jobs[1].job_id, "queued", 1),
        (jobs[2].job_id, "queued", 2),
    ]
    narrow.wait_until(lambda: [job.progress.jobs_ahead for job in jobs] == [0, 1, 2])
    assert "queued behind 2" in repr(jobs[2]) and jobs[2].progress.stages == ()
    GO_ON.set()
    assert all(job.result(WAIT_S).to_table().num_rows == 100 for job in jobs)


def test_cancelled_job_leaves_the_queue_and_the_next_moves_on(narrow: InProcessCluster) -> None:
    session = narrow.connect()
    running = submit_held(session)
    wait_for(narrow, 1, "running")
    first, second = submit_held(session), None
    wait_for(narrow, 1, "queued")
    second = submit_held(session)
    wait_for(narrow, 2, "queued")
    reply = narrow.on_loop(narrow.agents[0].driver.cancel(CancelJobRequest(job_id=first.job_id, reason="enough")))
    assert reply.known
    with pytest.raises(JobCancelled, match="enough"):
        first.result(WAIT_S)
    narrow.wait_until(lambda: second.progress.jobs_ahead == 1)
    second.cancel()
    with pytest.raises(JobCancelled, match="by its client"):
        second.result(WAIT_S)
    wait_for(narrow, 0, "queued")
    running.cancel()
    wait_for(narrow, 0, "running")


def test_job_that_a_coordinator_does_not_have_is_said_to_be_unknown(narrow: InProcessCluster) -> None:
    reply = narrow.on_loop(narrow.agents[1].driver.cancel(CancelJobRequest(job_id="ab" * 16)))
    assert not reply.known


def test_uploads_of_a_queued_job_outlive_their_lease_and_go_with_it(narrow: InProcessCluster) -> None:
    session = narrow.connect()
    running = submit_held(session)
    wait_for(narrow, 1, "running")
    job = submit_held(session)
    wait_for(narrow, 1, "queued")
    names = [agent.transport.published_names for agent in narrow.agents]

    def age_s() -> float:
        return min(
            (age for published in names for name, age in published().items() if name.startswith(job.job_id)), default=-1
        )

    narrow.wait_until(lambda: age_s() > 2.5 or age_s() < 0)
    assert age_s() > 2.5, "two sweeps have passed, and it lies there"
    GO_ON.set()
    assert running.result(WAIT_S).num_rows == job.result(WAIT_S).num_rows == 100


def test_draining_coordinator_refuses_what_is_queued(narrow: InProcessCluster) -> None:
    session = narrow.connect(1)
    running = submit_held(session)
    wait_for(narrow, 1, "running", agent=1)
    queued = submit_held(session)
    wait_for(narrow, 1, "queued", agent=1)
    driver = narrow.agents[1].driver

    async def drain() -> None:
        await driver.drain(0)

    narrow.on_loop(drain())
    with pytest.raises(PeerRefused, match="agent-1 is draining"):
        queued.result(WAIT_S)
    running.cancel()


def on_loop(body: object) -> None:
    asyncio.run(body())  # type: ignore[operator]


def test_place_is_left_once_and_an_id_has_one() -> None:
    async def main() -> None:
        admission = Admission(1)
        first, second = admission.enter("a", 1.0), admission.enter("b", 2.0)
        with pytest.raises(UsageError, match="runs already"):
            admission.enter("a", 1.0)
        assert (first.jobs_ahead, second.jobs_ahead) == (None, 1)
        first.leave()
        again = admission.enter("a", 1.0)
        first.leave()
        assert second.jobs_ahead is None and again.jobs_ahead == 1
        assert [place.job_id for place in admission] == ["b", "a"]

    on_loop(main)


def test_queue_that_is_full_refuses_the_next() -> None:
    async def main() -> None:
        admission = Admission(1, queued_max=1)
        admission.enter("a", 1.0)
        place = admission.enter("b", 1.0)
        with pytest.raises(LimitReached, match=r"jobs\.running_max"):
            admission.enter("c", 1.0)
        place.leave()
        admission.enter("c", 1.0)

    on_loop(main)


def test_refusal_that_comes_between_turn_and_start_is_not_missed() -> None:
    async def main() -> None:
        place: Place = Admission(1).enter("a", 1.0)
        assert [ahead async for ahead in place.turn()] == []
        place.refuse(JobCancelled("no"))
        place.refuse(JobCancelled("not this one"))
        with pytest.raises(JobCancelled, match=r"^no$"):
            place.check()

    on_loop(main)
