"""What every job that an agent coordinates finds around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sabot.agent.cluster.peer_watch import PeerWatch
from sabot.agent.jobs.peer_calls import PeerCalls
from sabot.agent.jobs.source_desk import SourceDesk
from sabot.wire.member import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Shared by all runs of an agent."""

    me: Member
    calls: PeerCalls
    watch: PeerWatch
    sources: SourceDesk
    peer_deadline_s: float
    takeover_s: float
    members: Callable[[], Sequence[Member]]  # of the cluster, as far as it is known now
