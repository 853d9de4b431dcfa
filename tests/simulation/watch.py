"""Pings an agent once a second until it is lost, by the rules of sabot.agent.peer_watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sabot.agent.peer_watch import PING_EVERY_S
from sabot.errors import PeerLost, SabotError
from sabot.wire.member import Member

from .clock import Timer
from .network import Call

if TYPE_CHECKING:
    from .agent import Agent

PEER_DEADLINE_S = 10.0


class Watch:
    """`on_lost` is called once, with the error that says how."""

    def __init__(self, agent: Agent, member: Member, on_lost: Callable[[PeerLost], None]) -> None:
        self._agent, self._member, self._on_lost = agent, member, on_lost
        self._stopped = False
        self._call: Call | None = None
        self._timer: Timer = agent.later(PING_EVERY_S, self._ping)

    def stop(self) -> None:
        self._stopped = True
        self._timer.cancel()
        if self._call is not None:
            self._call.cancel()

    def _ping(self) -> None:
        self._call = self._agent.world.network.call(
            self._agent,
            self._member.flight_address,
            "ping",
            None,
            answer=self._answered,
            timeout_s=PEER_DEADLINE_S,
        )

    def _answered(self, answer: Any) -> None:
        if self._stopped:
            return
        if answer == self._member.incarnation:
            self._timer = self._agent.later(PING_EVERY_S, self._ping)
            return
        how = answer.message if isinstance(answer, SabotError) else "was restarted, and has nothing of the job any more"
        self._stopped = True
        member = self._member
        self._on_lost(
            PeerLost(f"agent {member.agent_id}: {how}", agent=member.agent_id, address=member.control_address)
        )
