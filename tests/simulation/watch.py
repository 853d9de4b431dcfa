"""Pings an agent once a second until it is lost, by the rules of sabot.agent.cluster.peer_watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sabot.agent.cluster.peer_watch import PING_EVERY_S
from sabot.errors import PeerLost, SabotError
from sabot.wire.member import Member

from .clock import Timer
from .network import Call

if TYPE_CHECKING:
    from .agent import Agent
    from .client import Client

PEER_DEADLINE_S = 10.0
SECOND_PING_S = 0.05  # with less time left there is no second one


class Ping:
    """Asks whether `member` lives, a second time where a connection breaks; `heard` gets how it is lost, or None."""

    def __init__(self, agent: Agent | Client, member: Member, heard: Callable[[PeerLost | None], None]) -> None:
        self._agent, self._member, self._heard = agent, member, heard
        self._end_s = agent.world.clock.now_s + PEER_DEADLINE_S
        self._tries = 0
        self._call = self._ask(PEER_DEADLINE_S)

    def cancel(self) -> None:
        self._call.cancel()

    def _ask(self, timeout_s: float) -> Call:
        self._tries += 1
        network, address = self._agent.world.network, self._member.flight_address
        return network.call(self._agent, address, "ping", None, answer=self._answered, timeout_s=timeout_s)

    def _answered(self, answer: Any) -> None:
        if answer == self._member.incarnation:
            self._heard(None)
            return
        left_s = self._end_s - self._agent.world.clock.now_s
        if isinstance(answer, SabotError) and self._tries == 1 and left_s >= SECOND_PING_S:
            self._call = self._ask(left_s)
            return
        how = answer.message if isinstance(answer, SabotError) else "was restarted, and has nothing of the job any more"
        name, address = self._member.agent_id, self._member.control_address
        self._heard(PeerLost(f"agent {name}: {how}", agent=name, address=address))


class Watch:
    """`on_lost` is called once, with the error that says how."""

    def __init__(self, agent: Agent | Client, member: Member, on_lost: Callable[[PeerLost], None]) -> None:
        self._agent, self._member, self._on_lost = agent, member, on_lost
        self._ping: Ping | None = None
        self._stopped = False
        self._timer: Timer = agent.later(PING_EVERY_S, self._ask)

    def stop(self) -> None:
        self._stopped = True
        self._timer.cancel()
        if self._ping is not None:
            self._ping.cancel()

    def _ask(self) -> None:
        self._ping = Ping(self._agent, self._member, self._heard)

    def _heard(self, error: PeerLost | None) -> None:
        if self._stopped:
            return
        if error is None:
            self._timer = self._agent.later(PING_EVERY_S, self._ask)
        else:
            self._stopped = True
            self._on_lost(error)
