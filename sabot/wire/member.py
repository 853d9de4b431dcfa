"""The value by which agents and clients know a member of the cluster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One agent, told apart over restarts by `incarnation`; addresses are HOST:PORT as others reach them."""

    agent_id: str
    incarnation: int
    control_address: str
    flight_address: str
    http_address: str
    slots: int
    draining: bool = False

    @property
    def identity(self) -> tuple[str, int]:
        """What makes this agent this agent; an address does not."""
        return self.agent_id, self.incarnation
