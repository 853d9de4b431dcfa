"""The agents that come to a job while it runs: they are made to know it, and then take part. Pure.

A newcomer owns nothing, so the owner table, its epoch and what is being sent stay as they are. It reads files, pulls
partitions from owners that have many to read, and may become an owner when another agent is lost. One that cannot take
part costs the job nothing.
"""

from __future__ import annotations

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.job_stages import JobStages
from sabot.wire.member import Member


class Newcomers:
    """Those of one job, by index."""

    def __init__(self, stages: JobStages) -> None:
        self._stages = stages
        self._told: dict[int, int] = {}  # the epoch that each was prepared in
        self.admitted: list[int] = []

    def __contains__(self, agent: int) -> bool:
        """Whether it has come and takes no part yet."""
        return agent in self._told

    def prepare(self, newcomer: Member) -> ev.Prepare:
        agent = self._stages.admit(newcomer)
        self._told[agent] = self._stages.table.epoch
        return ev.Prepare(agent=agent, table=self._stages.table)

    def admit(self, agent: int) -> ev.Reown | None:
        """It takes part from now on; what it is to be told first, where the table has changed meanwhile."""
        self.admitted.append(agent)
        self._stages.table = self._stages.table.admitted(agent)
        if self._told.pop(agent) == self._stages.table.epoch:
            return None
        return ev.Reown(agent=agent, table=self._stages.table)

    def turn_away(self, agent: int) -> None:
        """It is gone, or cannot take part."""
        del self._told[agent]
