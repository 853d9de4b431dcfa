"""Keeps the tables that were uploaded for a job, and the results that it reads, while the job waits for its turn, on
whichever agents hold them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sabot.agent.cluster.membership import Membership
from sabot.agent.jobs.peer_calls import PeerCalls
from sabot.config import JobsSection
from sabot.dataflow.stage import JobPlan
from sabot.wire.agent_pb2 import KeepUploadsRequest


@asynccontextmanager
async def uploads_kept(
    plan: JobPlan, membership: Membership, calls: PeerCalls, config: JobsSection
) -> AsyncGenerator[None, None]:
    """For as long as the block lasts; one that does not wait costs no call."""
    keeping = asyncio.ensure_future(_keep(plan, membership, calls, config))
    try:
        yield
    finally:
        keeping.cancel()


async def _keep(plan: JobPlan, membership: Membership, calls: PeerCalls, config: JobsSection) -> None:
    holders = {piece.flight_address for pieces in plan.uploads.values() for piece in pieces}
    requests = [KeepUploadsRequest(job_id=job_id) for job_id in (plan.job_id, *plan.results_read)]
    while holders:
        members = [member for member in membership.members() if member.flight_address in holders]
        await asyncio.gather(
            *(
                calls.keep_uploads(member, request, timeout_s=config.peer_deadline_s)
                for member in members
                for request in requests
            ),
            return_exceptions=True,  # one that is lost is missed when the job starts
        )
        await asyncio.sleep(config.upload_lease_s / 3)
