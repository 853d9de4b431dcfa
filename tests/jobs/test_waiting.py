"""Leases run out by one timer; watched agents are found when they are gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from sabot.agent.cluster.peer_watch import PeerWatch
from sabot.agent.jobs.leases import Leases
from sabot.errors import PeerLost
from sabot.shuffle.client import PingReply

from .job_world import member


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer instead of waiting for it, unless threads are at work."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.threads_at_work = 0

    def time(self) -> float:
        return self.now_s

    def _run_once(self) -> None:
        scheduled = [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and scheduled and not self.threads_at_work:  # type: ignore[attr-defined]
            self.now_s = max(self.now_s, min(scheduled))
        super()._run_once()  # type: ignore[misc]

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        self.threads_at_work += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(lambda _: self._returned())
        return future

    def _returned(self) -> None:
        self.threads_at_work -= 1


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        runner.run(main)


async def pass_by(seconds: float) -> None:
    """Lets that much of the loop's own time pass, which takes none of ours."""
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    loop.call_later(seconds, passed.set_result, None)
    await passed


def now_s() -> float:
    return asyncio.get_running_loop().time()


def test_lease_runs_out_at_its_time_and_only_once() -> None:
    async def main() -> None:
        expired: list[tuple[str, float]] = []
        start_s = now_s()
        leases = Leases(lambda name: expired.append((name, now_s() - start_s)))
        leases.start("long", 60)
        leases.start("short", 5)
        await pass_by(600)
        assert expired == [("short", 5), ("long", 60)]
        assert "long" not in leases

    run(main())


def test_lease_that_was_ended_or_renewed_does_not_run_out() -> None:
    async def main() -> None:
        expired: list[str] = []
        leases = Leases(expired.append)
        leases.start("ended", 5)
        leases.start("renewed", 5)
        assert leases.end("ended")
        assert not leases.end("ended")
        leases.start("renewed", 50)
        await pass_by(20)
        assert expired == []
        await pass_by(40)
        assert expired == ["renewed"]

    run(main())


def test_no_timer_is_armed_while_nothing_is_kept() -> None:
    async def main() -> None:
        leases = Leases(lambda name: None)
        leases.start("a", 5)
        leases.end("a")
        assert leases._timer is None

    run(main())


class ScriptedPeers:
    """Answers pings by agent address: an incarnation, or an error to raise. Called from the watch's threads."""

    def __init__(self, answers: dict[str, int | PeerLost]) -> None:
        self.answers = answers
        self.pings: list[tuple[str, float]] = []
        self.breaking = 0  # pings that break before one is answered
        self.standing_still: Callable[[], None] = lambda: None  # what happens during one that breaks
        self._lock = threading.Lock()

    def ping(self, address: str, *, timeout_s: float = 1.0) -> PingReply:
        with self._lock:
            self.pings.append((address, timeout_s))
            answer = self.answers[address]
            if self.breaking:
                self.breaking -= 1
                self.standing_still()
                answer = PeerLost("broken off")
        if isinstance(answer, PeerLost):
            raise answer
        return PingReply(address=address, incarnation=answer)


def watching(answers: dict[str, int | PeerLost], main: Callable[[PeerWatch, ScriptedPeers], Any]) -> None:
    async def body() -> None:
        peers = ScriptedPeers(answers)
        watch = PeerWatch(peers, deadline_s=3.0)
        try:
            await main(watch, peers)
        finally:
            watch.close()

    run(body())


A, B = member(0), member(1)


def test_agent_that_does_not_answer_is_lost_by_name_and_address() -> None:
    async def main(watch: PeerWatch, peers: ScriptedPeers) -> None:
        error = await watch.lost(A)
        assert isinstance(error, PeerLost)
        assert (error.facts["agent"], error.facts["address"]) == (A.agent_id, A.control_address)
        assert A.agent_id in str(error) and A.control_address in str(error) and "3 s" in str(error)
        assert peers.pings == [(A.flight_address, 3.0)] * 2

    watching({A.flight_address: PeerLost("no answer")}, main)


def test_connection_that_breaks_once_is_no_death() -> None:
    async def main(watch: PeerWatch, peers: ScriptedPeers) -> None:
        job = asyncio.create_task(watch.lost(A))
        for broken in (1, 2):
            peers.breaking = broken
            await pass_by(1)
            assert job.done() == (broken == 2)
        assert isinstance(job.result(), PeerLost)

    watching({A.flight_address: A.incarnation}, main)


@pytest.mark.parametrize("late_s", [0.0, 1.0])
def test_deadline_that_went_by_while_this_agent_stood_still_is_no_death(late_s: float) -> None:
    async def main(watch: PeerWatch, peers: ScriptedPeers) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppedLoop)

        def stand_still() -> None:
            loop.now_s += 3.0 + late_s

        peers.breaking, peers.standing_still = 1, stand_still
        job = asyncio.create_task(watch.lost(A))
        await pass_by(10)
        assert job.done() == (late_s == 0.0)
        job.cancel()

    watching({A.flight_address: A.incarnation}, main)


def test_agent_that_came_back_as_another_is_lost() -> None:
    async def main(watch: PeerWatch, peers: ScriptedPeers) -> None:
        assert "restarted" in str(await watch.lost(A))

    watching({A.flight_address: A.incarnation + 1}, main)


def test_agent_is_pinged_once_a_second_however_many_watch_it() -> None:
    async def main(watch: PeerWatch, peers: ScriptedPeers) -> None:
        jobs = [asyncio.create_task(watch.lost(A)) for _ in range(10)]
        await pass_by(10.5)
        assert len(peers.pings) == 10
        assert not any(job.done() for job in jobs)
        peers.answers[A.flight_address] = PeerLost("gone")
        lost = await asyncio.gather(*jobs)
        assert len({id(error) for error in lost}) == 1

    watching({A.flight_address: A.incarnation}, main)


@pytest.mark.parametrize(("agents", "pings_a_second"), [(1, 10), (2, 10), (10, 2), (40, 1)])
def test_agents_of_a_job_that_waits_for_them_are_pinged_as_often_as_that_is_cheap(
    agents: int, pings_a_second: int
) -> None:
    peers_of_job = [member(index) for index in range(agents)]

    async def main(watch: PeerWatch, peers: ScriptedPeers) -> None:
        jobs = [asyncio.create_task(watch.lost(peer, eager=True)) for peer in peers_of_job]
        other = asyncio.create_task(watch.lost(peers_of_job[0]))
        await pass_by(10.05)
        assert len(peers.pings) == 10 * (agents * pings_a_second + 1)
        for job in (*jobs, other):
            job.cancel()

    watching({peer.flight_address: peer.incarnation for peer in peers_of_job}, main)


def test_watch_goes_on_for_one_job_when_another_ends() -> None:
    async def main(watch: PeerWatch, peers: ScriptedPeers) -> None:
        ended, other = (asyncio.create_task(watch.lost(A)) for _ in range(2))
        await pass_by(2.5)
        ended.cancel()
        await pass_by(2)
        assert not other.done() and watch.watched == 1
        peers.answers[A.flight_address] = PeerLost("gone")
        assert isinstance(await other, PeerLost)

    watching({A.flight_address: A.incarnation}, main)


def test_nobody_is_pinged_when_nobody_watches() -> None:
    async def main(watch: PeerWatch, peers: ScriptedPeers) -> None:
        jobs = [asyncio.create_task(watch.lost(peer)) for peer in (A, B)]
        await pass_by(1.5)
        assert watch.watched == 2 and len(peers.pings) == 2
        for job in jobs:
            job.cancel()
        await pass_by(60)
        assert watch.watched == 0 and len(peers.pings) == 2

    watching({A.flight_address: A.incarnation, B.flight_address: B.incarnation}, main)


def test_agent_lost_once_can_be_watched_again() -> None:
    async def main(watch: PeerWatch, peers: ScriptedPeers) -> None:
        assert isinstance(await watch.lost(A), PeerLost)
        peers.answers[A.flight_address] = A.incarnation
        again = asyncio.create_task(watch.lost(A))
        await pass_by(3)
        assert not again.done()
        again.cancel()

    watching({A.flight_address: PeerLost("away")}, main)
