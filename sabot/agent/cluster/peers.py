"""Carries out what Membership commands: joins, tells, probes and says goodbye, over control channels of its own.

Everything runs on the daemon's loop and every call has a deadline. A member that cannot be told something is logged and
left to learn it otherwise; only what concerns this agent's own joining raises.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc

from sabot.agent.cluster.membership import Membership, Message, Probe, Tell, TellLeft
from sabot.errors import PeerLost, PeerRefused, SabotError
from sabot.wire import agent_pb2, agent_pb2_grpc
from sabot.wire.addresses import control_channel_options
from sabot.wire.convert import from_agent, to_agent
from sabot.wire.member import Member
from sabot.wire.rpc_errors import error_of
from sabot.wire.versions import my_versions

GOODBYE_DEADLINE_S = 2.0
_RECONNECT_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]

log = logging.getLogger("sabot.agent")


class Peers:
    """The other members, as the daemon talks to them; `incarnation_at` asks a Flight address who answers there."""

    def __init__(
        self,
        membership: Membership,
        *,
        incarnation_at: Callable[[str], Awaitable[int | None]],
        deadline_s: float,
    ) -> None:
        self._membership = membership
        self._incarnation_at = incarnation_at
        self._deadline_s = deadline_s
        self._telling: set[asyncio.Task[None]] = set()

    async def join(self, addresses: Sequence[str]) -> None:
        """Joins through whichever of `addresses` answers first, this agent's own aside; none given: nothing to do.

        PeerLost, naming all of them, when none answers in time; PeerRefused when a member says no.
        """
        mine = self._membership.me.control_address
        others = [address for address in dict.fromkeys(addresses) if address != mine]
        if not others:
            return
        members = await self._first_answer(others)
        await self.carry_out(self._membership.on_answer(members), joining=True)
        log.info("joined members=%d through=%s", len(self._membership.members()), ",".join(others))

    async def on_join(self, newcomer: Member, *, forwarded: bool) -> list[Member]:
        """Takes `newcomer` in; the members that it should know. PeerRefused: it cannot be one.

        The others are told meanwhile, so that one that does not answer cannot use up the newcomer's deadline.
        """
        commands = deque(self._membership.on_join(newcomer, forwarded=forwarded))
        rest: list[Message] = []
        while commands:
            command = commands.popleft()
            if isinstance(command, Probe):
                alive = await self._incarnation_at(command.holder.flight_address) == command.holder.incarnation
                commands.extend(self._membership.on_probed(command, alive=alive))
            else:
                rest.append(command)
        telling = asyncio.ensure_future(self.carry_out(rest))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        return self._membership.members()

    async def carry_out(
        self, commands: Iterable[Message], *, deadline_s: float | None = None, joining: bool = False
    ) -> None:
        """Tells whom there is to tell, all at once; `joining`: a member that refuses this agent makes it raise."""
        wave: list[Message] = list(commands)
        while wave:
            sent = (self._send(command, deadline_s or self._deadline_s, joining) for command in wave)
            answers = await asyncio.gather(*sent)
            wave = [command for members in answers for command in self._membership.on_answer(members)]

    async def leave(self) -> None:
        """Says goodbye to all."""
        await self.carry_out(self._membership.on_stop(), deadline_s=GOODBYE_DEADLINE_S)

    async def close(self) -> None:
        """Ends what is still being told."""
        for telling in self._telling:
            telling.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _first_answer(self, addresses: Sequence[str]) -> list[Member]:
        tasks = [
            asyncio.ensure_future(self._tell(address, self._membership.me, self._deadline_s, wait=True))
            for address in addresses
        ]
        lost: list[str] = []
        try:
            for done in asyncio.as_completed(tasks):
                try:
                    return await done
                except PeerLost as error:
                    lost.append(error.message)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise PeerLost(
            f"no member answered to join: {'; '.join(lost)}. Start it first, or correct the address (flag --join, key "
            "agent.join; it takes control ports)",
            address=",".join(addresses),
            deadline_s=self._deadline_s,
        )

    async def _send(self, command: Message, deadline_s: float, joining: bool) -> list[Member]:
        try:
            match command:
                case Tell(to=to, about=about):
                    answer = await self._tell(to.control_address, about, deadline_s, forwarded=True)
                    return answer if about == self._membership.me else []
                case TellLeft(to=to, who=who):
                    request = agent_pb2.LeaveRequest(agent=to_agent(who))
                    await self._call(to.control_address, "Leave", request, deadline_s)
        except SabotError as error:
            if joining and isinstance(error, PeerRefused):
                raise
            log.warning("peer not told address=%s reason=%r", command.to.control_address, error.message)
        return []

    async def _tell(
        self, address: str, about: Member, deadline_s: float, *, forwarded: bool = False, wait: bool = False
    ) -> list[Member]:
        request = agent_pb2.JoinRequest(agent=to_agent(about), versions=my_versions(), forwarded=forwarded)
        reply = await self._call(address, "Join", request, deadline_s, wait=wait)
        return [from_agent(agent) for agent in reply.members]

    async def _call(self, address: str, method: str, request: Any, deadline_s: float, *, wait: bool = False) -> Any:
        options = [*control_channel_options(), *_RECONNECT_OPTIONS]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            stub = agent_pb2_grpc.AgentControlStub(channel)
            try:
                return await getattr(stub, method)(request, timeout=deadline_s, wait_for_ready=wait)
            except grpc.RpcError as error:
                failure = error_of(error, address=address, deadline_s=deadline_s)
        if isinstance(failure, SabotError):
            raise failure
        raise PeerRefused(f"agent {address} failed: {failure}", address=address) from failure
