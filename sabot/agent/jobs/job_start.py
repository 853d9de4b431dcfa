"""Makes the runs of jobs that are submitted here: over which agents, and from where on. Used on the loop's thread."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sabot.agent.cluster.membership import Membership
from sabot.agent.cluster.peer_watch import PeerWatch
from sabot.agent.coordination.coordinator import Coordinator
from sabot.agent.coordination.hot_partitions import HotRule
from sabot.agent.coordination.range_choice import RangeRule
from sabot.agent.coordination.slow_tasks import SlowRule
from sabot.agent.coordination.takeover import Inheritance
from sabot.agent.jobs.job_run import JobRun
from sabot.agent.jobs.peer_calls import PeerCalls
from sabot.agent.jobs.source_desk import SourceDesk
from sabot.agent.jobs.succession import succeed
from sabot.agent.jobs.surroundings import Surroundings
from sabot.config import JobsSection
from sabot.dataflow.ranges import HomeShuffle
from sabot.dataflow.stage import JobPlan
from sabot.wire.agent_pb2 import SubmitJobRequest
from sabot.wire.convert import from_agent
from sabot.wire.member import Member

log = logging.getLogger("sabot.jobs")


class JobStarter:
    """Knows the cluster, as a new job should find it."""

    def __init__(
        self,
        *,
        membership: Membership,
        calls: PeerCalls,
        sources: SourceDesk,
        watch: PeerWatch,
        config: JobsSection,
        hot: HotRule,
        ranges: RangeRule,
    ) -> None:
        self._membership = membership
        self._calls = calls
        self._sources = sources
        self._watch = watch
        self._config = config
        self._hot = hot
        self.ranges = ranges

    def _split_bytes(self, plan: JobPlan) -> int:
        """Where rows are to be sorted, what a task keeps is read again whole: no more than memory has room for."""
        sorts = any(isinstance(stage.output, HomeShuffle) for stage in plan.stages)
        return min(self._config.split_bytes, 2 * self.ranges.bytes_max) if sorts else self._config.split_bytes

    async def make(self, request: SubmitJobRequest, plan: JobPlan) -> JobRun:
        """A run, yet to be started; it goes on where an earlier coordinator was, if agents hold anything of the job."""
        inherited: Inheritance | None = None
        members = self._membership.members()
        if request.epoch:
            inherited, members = await self._inherited(request)
        agents = await self._agents_for(plan, members) if inherited is None else inherited.agents
        coordinator = Coordinator(
            plan=plan,
            agents=agents,
            partitions_per_slot=self._config.partitions_per_slot,
            split_bytes=self._split_bytes(plan),
            attempts_max=self._config.attempts_max,
            hot=self._hot,
            ranges=self.ranges,
            slow=SlowRule(factor=self._config.slow_task_factor),
            epoch=request.epoch,
            inherited=inherited,
        )
        return JobRun(
            job_id=plan.job_id,
            plan=request.plan,
            coordinator=coordinator,
            agents=agents,
            surroundings=Surroundings(
                me=self._membership.me,
                calls=self._calls,
                watch=self._watch,
                sources=self._sources,
                peer_deadline_s=self._config.peer_deadline_s,
                takeover_s=self._config.takeover_s,
                members=self._membership.members,
            ),
        )

    async def _inherited(self, request: SubmitJobRequest) -> tuple[Inheritance | None, list[Member]]:
        """Where a job stands whose coordinator is lost, and who can take part in it."""
        candidates = [from_agent(agent) for agent in request.agents] or self._membership.members()
        return await succeed(
            request.job_id,
            request.epoch,
            candidates,
            me=self._membership.me,
            calls=self._calls,
            timeout_s=self._config.peer_deadline_s,
        )

    async def _agents_for(self, plan: JobPlan, known: Sequence[Member]) -> list[Member]:
        """The members that answer now; a silent one costs the job its slots, unless it holds some of the job's rows."""
        me = self._membership.me.identity
        members = [member for member in known if not member.draining]
        others = [member for member in members if member.identity != me]
        answering, lost = await self._watch.answering(others)
        holders = {piece.flight_address: piece for pieces in plan.uploads.values() for piece in pieces}
        silent = [member for member in others if member not in answering]
        for member, error in zip(silent, lost, strict=True):
            piece = holders.get(member.flight_address)
            if piece is not None:
                if piece.result is None:
                    error.facts["upload"] = piece.flight_address
                raise error
            log.warning("agent left out job=%s agent=%s error=%s", plan.job_id, member.agent_id, error.message)
        return [member for member in members if member not in silent]
