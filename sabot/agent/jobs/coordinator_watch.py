"""Ends a job on this agent when it has no part in it any more, or nobody is left who drives it.

Used on the loop's thread. A job without its coordinator is kept for a while: its client may have another agent take it
over, which then needs what lies here.
"""

from __future__ import annotations

import asyncio
import logging

from sabot.agent.cluster.peer_watch import PeerWatch
from sabot.agent.jobs.job_state import HeldJob, JobState
from sabot.agent.jobs.peer_calls import PeerCalls
from sabot.config import JobsSection
from sabot.errors import JobTakenOver
from sabot.wire.agent_pb2 import CheckJobRequest
from sabot.wire.convert import to_agent
from sabot.wire.member import Member

log = logging.getLogger("sabot.jobs")


class CoordinatorWatch:
    """Watches the coordinators of the jobs held here, each by a task that ends with its job."""

    def __init__(self, *, me: Member, state: JobState, calls: PeerCalls, watch: PeerWatch, config: JobsSection) -> None:
        self._me = me
        self._state = state
        self._calls = calls
        self._watch = watch
        self._config = config

    def start(self, held: HeldJob, coordinator: Member) -> None:
        """From now on `coordinator` drives the job; its own agent needs no watch."""
        if held.watch is None and coordinator.identity != self._me.identity:
            held.watch = asyncio.get_running_loop().create_task(self._end_without(coordinator, held))

    def orphan(self, held: HeldJob) -> None:
        """This agent drove the job, and another does now; unless that one calls, it has no part in it any more."""
        if held.watch is None:
            held.watch = asyncio.get_running_loop().create_task(self._end_late(held))

    async def _end_without(self, coordinator: Member, held: HeldJob) -> None:
        job_id = held.plan.job_id
        lost = asyncio.ensure_future(self._watch.lost(coordinator))
        try:
            while not (await asyncio.wait([lost], timeout=self._config.peer_deadline_s))[0]:
                request = CheckJobRequest(
                    job_id=job_id, agent=to_agent(self._me), coordinator=to_agent(coordinator), epoch=held.table.epoch
                )
                try:
                    reply = await self._calls.check_job(coordinator, request, timeout_s=self._config.peer_deadline_s)
                except JobTakenOver:  # by one that has not called here yet, or never will
                    break
                except Exception as error:  # whether it is lost is found by pings
                    log.debug("coordinator not asked job=%s error=%s", job_id, error)
                    continue
                if not reply.takes_part:
                    log.warning("job ended here, its coordinator goes on without this agent job=%s", job_id)
                    await self._end(held, keep_result=reply.keep_result)
                    return
            log.warning("job without its coordinator job=%s lost=%s", job_id, lost.result() if lost.done() else None)
        finally:
            lost.cancel()
        await self._end_late(held)

    async def _end_late(self, held: HeldJob) -> None:
        await asyncio.sleep(self._config.takeover_s)
        log.warning("job ended here, nobody has taken it over job=%s", held.plan.job_id)
        await self._end(held, keep_result=held.keep_result)

    async def _end(self, held: HeldJob, *, keep_result: bool) -> None:
        # Ending the job cancels this watch; it must not cancel the ending.
        await asyncio.shield(asyncio.ensure_future(self._state.end(held.plan.job_id, keep_result=keep_result)))
