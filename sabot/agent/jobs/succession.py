"""Asks the agents of a job that has lost its coordinator what they hold of it. Used on the loop's thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sabot.agent.coordination.takeover import Identity, Inheritance, agents_named, inherit, may_coordinate
from sabot.agent.jobs.peer_calls import PeerCalls
from sabot.errors import JobTakenOver, PeerRefused
from sabot.wire.agent_pb2 import Failure, TakeOverJobReply, TakeOverJobRequest
from sabot.wire.convert import to_agent
from sabot.wire.failure import to_failure
from sabot.wire.member import Member

log = logging.getLogger("sabot.jobs")


async def succeed(
    job_id: str, epoch: int, candidates: Sequence[Member], *, me: Member, calls: PeerCalls, timeout_s: float
) -> tuple[Inheritance | None, list[Member]]:
    """Has all agents that answer take `me` for the job's coordinator. Where the job stands (None: nobody holds it), and
    who of those that were asked can take part.

    JobTakenOver where one of them knows a later coordinator, PeerRefused where `me` has no part in the job any more.
    """
    replies: dict[Identity, TakeOverJobReply] = {}
    failures: dict[Identity, Failure] = {}

    async def ask(member: Member) -> None:
        request = TakeOverJobRequest(job_id=job_id, epoch=epoch, coordinator=to_agent(me), agent=to_agent(member))
        try:
            replies[member.identity] = await calls.take_over(member, request, timeout_s=timeout_s)
        except JobTakenOver:
            raise
        except Exception as error:
            log.warning("agent not reached in a takeover job=%s agent=%s error=%s", job_id, member.agent_id, error)
            failures[member.identity] = to_failure(error)

    known: list[Member] = []
    while new := _unasked([*candidates, *agents_named(list(replies.values()))], known):
        known += new
        await asyncio.gather(*(ask(member) for member in new))
    inherited = inherit(replies, failures)
    if not may_coordinate(me, replies, inherited):
        raise PeerRefused(
            f"agent {me.agent_id} has no part in job {job_id} any more, and cannot take it over; ask another",
            agent=me.agent_id,
            address=me.control_address,
        )
    return inherited, [member for member in known if member.identity in replies and not replies[member.identity].ended]


def _unasked(members: Sequence[Member], known: Sequence[Member]) -> list[Member]:
    asked = {member.identity for member in known}
    return list({member.identity: member for member in members if member.identity not in asked}.values())
