"""Members as values, and as the messages that carry them."""

from __future__ import annotations

from sabot.errors import PeerRefused
from sabot.wire.addresses import parse_address
from sabot.wire.agent_pb2 import Agent
from sabot.wire.member import Member


def to_agent(member: Member) -> Agent:
    """The message for `member`."""
    return Agent(
        agent_id=member.agent_id,
        incarnation=member.incarnation,
        control_address=member.control_address,
        flight_address=member.flight_address,
        http_address=member.http_address,
        slots=member.slots,
        draining=member.draining,
    )


def from_agent(agent: Agent) -> Member:
    """The value of `agent`; PeerRefused for a message that lacks its name, incarnation or a usable address."""
    if not agent.agent_id or not agent.incarnation:
        raise PeerRefused("an agent did not tell its agent_id and incarnation; start it anew with this version")
    for kind, text in (
        ("control", agent.control_address),
        ("Flight", agent.flight_address),
        ("HTTP", agent.http_address),
    ):
        parse_address(text, what=f"{kind} address of agent {agent.agent_id}")
    return Member(
        agent_id=agent.agent_id,
        incarnation=agent.incarnation,
        control_address=agent.control_address,
        flight_address=agent.flight_address,
        http_address=agent.http_address,
        slots=agent.slots,
        draining=agent.draining,
    )
