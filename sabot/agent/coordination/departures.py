"""The agents that leave a job while it runs: others become the owners of what they own, and then they may go. Pure.

An owner that leaves ends what it has begun; others pull from it meanwhile. Then nothing is started until nothing is
under way that goes by the owner table, so that nobody has to start again, and the table changes. What the leaver holds
and is still to be read it sends to the new owners, as new attempts of the tasks that made it. It has left when nothing
of the job rests on it, and all others know of that.
"""

from __future__ import annotations

from collections.abc import Sequence

from sabot.agent.coordination.job_journal import Mark, WrittenJournal
from sabot.agent.coordination.job_stages import JobStages
from sabot.agent.coordination.rows_away import rests_on
from sabot.dataflow.stage import JobPlan
from sabot.wire.member import Member


class Departures:
    """Those of one job."""

    def __init__(self, plan: JobPlan, agents: Sequence[Member], stages: JobStages, journal: WrittenJournal) -> None:
        self._plan = plan
        self._agents = agents
        self._stages = stages
        self._journal = journal
        self._stay: set[int] = set()
        self._marks: dict[int, Mark] = {}  # of those on which nothing rests: from where on the journal says so

    def add(self, agent: int, *, stays: bool) -> None:
        """The agent drains; `stays`: as it coordinates the job, it takes part to the end."""
        self._stages.leaving |= {agent}
        if stays:
            self._stay.add(agent)

    @property
    def are_due(self) -> bool:
        """Whether an owner leaves that has ended what it had begun."""
        owners = self._owners()
        return bool(owners) and not any(one.agent in owners for run in self._stages for one in run.under_way)

    def hand_over(self) -> bool:
        """Gives what the leavers own to others; False while something is under way that needs the table as it is."""
        for run in self._stages:
            reads_copies = bool(run.stage.copied)
            if any(reads_copies or run.shuffles or one.needs(-1) for one in run.under_way):
                return False
        self._stages.hand_over()
        self._journal.rewrite()
        return True

    @property
    def wait_for_journal(self) -> bool:
        """Whether an agent could go if all others had the journal."""
        return bool(self._marks)

    def let_go(self) -> list[int]:
        """Those that have left by now."""
        gone = []
        leavers = self._stages.leavers - self._stay
        self._marks = {agent: mark for agent, mark in self._marks.items() if agent in leavers}
        for agent in sorted(leavers):
            if self._something_rests_on(agent):
                self._marks.pop(agent, None)
                continue
            mark = self._marks.setdefault(agent, self._journal.end)
            others = [other for other in self._stages.table.living if other != agent]
            if self._journal.is_kept_by_all(others, mark):
                del self._marks[agent]
                self._stages.leave(agent)
                self._journal.rewrite()
                gone.append(agent)
        return gone

    def _something_rests_on(self, agent: int) -> bool:
        """Whether the job would lose something with it; pieces of tables may have to be read once more after a loss."""
        address = self._agents[agent].flight_address
        pieces = (piece for pieces in self._plan.uploads.values() for piece in pieces)
        return (  # it is asked at every event: what takes a look at all tasks comes last
            bool(self._stages.table.owned_by(agent))
            or any(piece.flight_address == address for piece in pieces)
            or any(one.agent == agent for run in self._stages for one in run.under_way)
            or any(rests_on(run, agent) for run in self._stages)
        )

    def _owners(self) -> frozenset[int]:
        return self._stages.leavers.intersection(self._stages.table.owners)
