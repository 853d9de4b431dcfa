"""Finds out that an agent is gone, frozen or another one than it was, by native pings while somebody needs to know.

Each watched agent is pinged once a second however many jobs watch it, in a small pool of threads; nothing runs while no
agent is watched. Those of a job that is coordinated here are pinged more often, since others may wait for one that is
dead and runs no task: ten times a second where there are two of them, twice where there are ten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from sabot.errors import PeerLost, SabotError
from sabot.wire.member import Member

PING_EVERY_S = 1.0
_EAGER_PINGS_A_SECOND = 20  # at some 0.2 ms of CPU each
_EAGER_EVERY_S_MIN = 0.1
_FIRST_PING_S = 1.0  # at a job's start nothing is lost by leaving a slow one out
_SECOND_PING_S = 0.05  # with less time left there is no second one
_STOOD_STILL_S = 0.1  # so late after a deadline its error comes only where this process has stood still, too
_THREADS_MAX = 8


_Key = tuple[tuple[str, int], bool]  # an agent, and whether it is watched eagerly


class PingAnswer(Protocol):
    @property
    def incarnation(self) -> int: ...


class Pinger(Protocol):
    """Blocks until the agent at a Flight address has answered, at most `timeout_s`; raises PeerLost."""

    def ping(self, address: str, *, timeout_s: float = 1.0) -> PingAnswer: ...


class PeerWatch:
    """Watches agents for whoever awaits `lost`."""

    def __init__(self, pinger: Pinger, *, deadline_s: float, every_s: float = PING_EVERY_S) -> None:
        self._pinger = pinger
        self._deadline_s = deadline_s
        self._every_s = every_s
        self._threads = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="sabot-ping")
        self._watches: dict[_Key, tuple[asyncio.Task[PeerLost], set[object]]] = {}

    @property
    def watched(self) -> int:
        """How many agents are pinged now."""
        return len(self._watches)

    async def lost(self, member: Member, *, eager: bool = False) -> PeerLost:
        """Returns only when `member` is lost, with the error that says how; until then it watches, `eager` where a job
        waits for that.
        """
        waiter, key = object(), (member.identity, eager)
        task, waiters = self._watches.get(key) or (asyncio.create_task(self._watch(member, eager=eager)), set())
        self._watches[key] = (task, waiters)
        waiters.add(waiter)
        try:
            return await asyncio.shield(task)
        finally:
            waiters.discard(waiter)
            if not waiters and self._watches.get(key, (None, None))[0] is task:
                del self._watches[key]
                task.cancel()

    async def answering(self, members: Sequence[Member]) -> tuple[list[Member], list[PeerLost]]:
        """Who of `members` answers one ping, in their order, and how each of the others is lost."""
        lost = await asyncio.gather(
            *(self._ping_once(member, min(_FIRST_PING_S, self._deadline_s)) for member in members)
        )
        answering = [member for member, error in zip(members, lost, strict=True) if error is None]
        return answering, [error for error in lost if error is not None]

    async def check(self, member: Member) -> PeerLost | None:
        """How `member` is lost, if it is: within the deadline."""
        return await self._ping_twice(member)

    def close(self) -> None:
        """Ends the threads; pings under way end by their own deadline."""
        for task, _ in self._watches.values():
            task.cancel()
        self._watches.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _watch(self, member: Member, *, eager: bool) -> PeerLost:
        while True:
            await asyncio.sleep(self._eager_every_s if eager else self._every_s)
            error = await self._ping_twice(member)
            if error is not None:
                return error

    @property
    def _eager_every_s(self) -> float:
        agents = sum(eager for _, eager in self._watches)
        return min(self._every_s, max(_EAGER_EVERY_S_MIN, agents / _EAGER_PINGS_A_SECOND))

    async def _ping_twice(self, member: Member) -> PeerLost | None:
        """How `member` is lost, if it is: a connection that breaks once is no death, and costs a second try. So does a
        deadline that went by while the whole machine was stopped, as a virtual one may be: then all seem to be silent.
        """
        end_s = asyncio.get_running_loop().time() + self._deadline_s
        error = await self._ping_once(member, self._deadline_s)
        left_s = end_s - asyncio.get_running_loop().time()
        if left_s < -_STOOD_STILL_S:
            left_s = self._deadline_s
        if error is None or left_s < _SECOND_PING_S or error.facts.get("restarted"):
            return error
        return await self._ping_once(member, left_s)

    async def _ping_once(self, member: Member, timeout_s: float) -> PeerLost | None:
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(self._threads, self._ping, member.flight_address, timeout_s)
        except SabotError as error:
            return _lost(member, f"did not answer a ping, for which it has {timeout_s:g} s ({error.message})")
        if answer.incarnation != member.incarnation:
            return _lost(member, "was restarted, and has nothing of the job any more", restarted=True)
        return None

    def _ping(self, address: str, timeout_s: float) -> PingAnswer:
        return self._pinger.ping(address, timeout_s=timeout_s)


def _lost(member: Member, how: str, **facts: bool) -> PeerLost:
    return PeerLost(
        f"agent {member.agent_id} at {member.control_address} {how}; "
        "see whether it still runs (sabot-agent agents), then run the job again",
        agent=member.agent_id,
        address=member.control_address,
        **facts,
    )
