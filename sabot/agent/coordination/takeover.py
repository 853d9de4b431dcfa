"""What a new coordinator makes of the things that a job's agents say when it takes the job over. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sabot.agent.coordination.job_journal import WrittenJournal, journal_mark, restore
from sabot.agent.coordination.job_stages import JobStages
from sabot.agent.coordination.owner_table import OwnerTable
from sabot.errors import PeerLost
from sabot.wire import agent_pb2
from sabot.wire.agent_pb2 import Failure, JobJournal, TakeOverJobReply
from sabot.wire.convert import from_agent
from sabot.wire.failure import to_failure
from sabot.wire.member import Member

Identity = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inheritance:
    """Where a job stands, as the agents know that are left. `absent` are those that are not, with the reason."""

    agents: tuple[Member, ...]
    num_partitions: dict[int, int]
    table: OwnerTable
    journal: JobJournal
    absent: dict[int, Failure] = field(default_factory=dict)


def agents_named(replies: Sequence[TakeOverJobReply]) -> list[Member]:
    """The agents of the job, by those that hold it; none where nobody does."""
    lists = [reply.agents for reply in replies if reply.held]
    return [from_agent(agent) for agent in max(lists, key=len, default=[])]


def inherit(replies: Mapping[Identity, TakeOverJobReply], failures: Mapping[Identity, Failure]) -> Inheritance | None:
    """Where the job stands; None where nobody holds it, so that it begins anew.

    What is held under the newest owner table and in the longest journal says all: no reader has started before all
    agents had both, and of those that were given up since nothing is taken.
    """
    agents = agents_named(list(replies.values()))
    held = {identity: reply for identity, reply in replies.items() if reply.held and _names(reply, agents)}
    if not held:
        return None
    table = from_wire_table(max((reply.table for reply in held.values()), key=lambda known: known.epoch), len(agents))
    given_up = {agents[agent].identity for agent in table.lost}
    known = {identity: reply for identity, reply in held.items() if identity not in given_up} or held
    counts = next(iter(known.values())).num_partitions
    absent = {}
    for index, agent in enumerate(agents):
        reply = replies.get(agent.identity)
        if index not in table.lost and (reply is None or reply.ended or (reply.held and agent.identity not in held)):
            absent[index] = failures.get(agent.identity) or _has_ended(agent)
    return Inheritance(
        agents=tuple(agents),
        num_partitions={stage_id: count for stage_id, count in enumerate(counts) if count},
        table=table,
        journal=max((reply.journal for reply in known.values()), key=journal_mark),
        absent=absent,
    )


def may_coordinate(agent: Member, replies: Mapping[Identity, TakeOverJobReply], inherited: Inheritance | None) -> bool:
    """Whether the agent has a part in the job, or may have one where it begins anew."""
    reply = replies.get(agent.identity)
    if reply is None or reply.ended:
        return False
    if inherited is None:
        return True
    return any(
        index not in inherited.table.lost and other.identity == agent.identity
        for index, other in enumerate(inherited.agents)
    )


def go_on(stages: JobStages, journal: WrittenJournal, epoch: int, inherited: Inheritance | None) -> None:
    """Puts new stages where the job stands, by what the agents know that are left; nothing that was under way counts.

    No reader starts before all of them know as much.
    """
    if inherited is not None:
        restore(stages, inherited.journal)
    stages.resume(epoch, first_attempt=epoch)
    if inherited is not None:
        for agent in sorted(inherited.table.lost.union(inherited.absent) - stages.table.lost):
            stages.give_up(agent)
    stages.find_work()
    for run in stages:
        run.gate = journal.end


def to_wire_table(table: OwnerTable) -> agent_pb2.OwnerTable:
    return agent_pb2.OwnerTable(epoch=table.epoch, owners=table.owners, lost=sorted(table.lost))


def from_wire_table(table: agent_pb2.OwnerTable, agents: int) -> OwnerTable:
    return OwnerTable(epoch=table.epoch, agents=agents, owners=tuple(table.owners), lost=frozenset(table.lost))


def _names(reply: TakeOverJobReply, agents: Sequence[Member]) -> bool:
    """Whether the reply means the same agents by their numbers. Of two that joined just before a coordinator was lost
    each may have been told of itself only.
    """
    theirs = [(agent.agent_id, agent.incarnation) for agent in reply.agents]
    return theirs == [agent.identity for agent in agents[: len(theirs)]]


def _has_ended(agent: Member) -> Failure:
    return to_failure(
        PeerLost(
            f"agent {agent.agent_id} at {agent.control_address} has ended the job by itself, since it missed the "
            "coordinator for too long",
            agent=agent.agent_id,
            address=agent.control_address,
        )
    )
