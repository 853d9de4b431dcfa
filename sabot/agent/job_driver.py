"""All that an agent does about jobs: it coordinates those submitted to it, and carries out its part of all others.

Every coroutine runs on the daemon's loop and raises sabot.errors, which the control service puts on the wire. What
blocks runs in threads of bounded pools.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sabot.agent.admission import Admission, Place
from sabot.agent.context import AgentContext
from sabot.agent.coordinator import Coordinator
from sabot.agent.hot_partitions import HotRule
from sabot.agent.job_list import summaries
from sabot.agent.job_run import JobRun, Surroundings
from sabot.agent.job_state import JobState
from sabot.agent.leases import Leases
from sabot.agent.membership import Membership
from sabot.agent.peer_calls import PeerCalls
from sabot.agent.peer_watch import PeerWatch
from sabot.agent.schema_learner import SchemaLearner
from sabot.agent.slow_tasks import SlowRule
from sabot.agent.source_desk import SourceDesk
from sabot.agent.task_runner import TaskLimits, TaskRunner
from sabot.agent.upload_keeper import uploads_kept
from sabot.config import Config
from sabot.dataflow.stage import JobPlan
from sabot.errors import JobCancelled, PeerLost, PeerRefused, UsageError
from sabot.wire.agent_pb2 import (
    CancelJobReply,
    CancelJobRequest,
    CheckJobReply,
    CheckJobRequest,
    EndJobReply,
    EndJobRequest,
    JobEvent,
    JobQueued,
    KeepUploadsReply,
    KeepUploadsRequest,
    LearnSchemaReply,
    LearnSchemaRequest,
    ListJobsReply,
    ListJobsRequest,
    PrepareJobReply,
    PrepareJobRequest,
    ReleaseJobReply,
    ReleaseJobRequest,
    ReownJobReply,
    ReownJobRequest,
    RunTaskReply,
    RunTaskRequest,
    SubmitJobRequest,
)
from sabot.wire.convert import from_agent, to_agent
from sabot.wire.failure import to_failure
from sabot.wire.member import Member
from sabot.wire.versions import check_versions

log = logging.getLogger("sabot.jobs")

_CLOSE_WAIT_S = 2.0


class JobDriver:
    """Made and used on the daemon's loop; `close` it before the context is shut down."""

    def __init__(self, *, context: AgentContext, membership: Membership, config: Config) -> None:
        self._membership = membership
        self._config = config.jobs
        self._hot = HotRule(factor=config.shuffle.hot_partition_factor)
        me = membership.me
        context.task_slot_manager.execute_nursery()
        runner = TaskRunner(
            agent_id=me.agent_id,
            slots=context.task_slot_manager,
            transport=context.shuffle_transport,
            limits=TaskLimits(
                morsel_bytes=config.slots.morsel_bytes,
                scatter_bytes_max=config.shuffle.scatter_bytes_max,
                worker_memory_bytes=config.slots.worker_memory_bytes,
            ),
        )
        self._state = JobState(
            agent_id=me.agent_id,
            transport=context.shuffle_transport,
            runner=runner,
            result_lease_s=config.jobs.result_lease_s,
            upload_lease_s=config.jobs.upload_lease_s,
        )
        self._learner = SchemaLearner(agent_id=me.agent_id, new_workers=runner.new_workers)
        self._watch = PeerWatch(context.shuffle_transport, deadline_s=config.jobs.peer_deadline_s)
        self._calls = PeerCalls(self, me.identity)
        self._admission = Admission(config.jobs.running_max)
        self._runs: dict[str, JobRun] = {}
        self._finished: dict[str, tuple[Member, ...]] = {}  # who keeps a result, while its lease runs
        self._leases = Leases(self._forget_finished)
        self._winding_up: set[asyncio.Task[None]] = set()
        self._draining = False
        self.sources = SourceDesk(membership, self._calls)
        self._state.start_sweeping()

    @property
    def broadcast_bytes_max(self) -> int:
        """What sessions that connect here have copied to every agent for a join."""
        return self._config.broadcast_bytes_max

    def jobs_running(self) -> int:
        """Jobs that this agent coordinates or has prepared for another."""
        return len(self._runs.keys() | self._state.job_ids)

    def tasks_running(self) -> int:
        return self._state.tasks_running

    async def submit(self, request: SubmitJobRequest) -> AsyncGenerator[JobEvent, None]:
        """Coordinates a job and says how it goes; closing the generator before its end cancels the job everywhere."""
        self._check_submission(request)
        plan = await self._plan_of(request)
        place = self._admission.enter(plan.job_id, plan.weight)
        for job_id in plan.results_read & self._finished.keys():
            self._leases.start(job_id, self._config.result_lease_s)
        try:
            kept = uploads_kept(plan, self._membership, self._calls, self._config)
            async with kept, aclosing(place.turn()) as moves:
                async for jobs_ahead in moves:
                    yield JobEvent(queued=JobQueued(jobs_ahead=jobs_ahead))
            run = await self._start_run(request, plan, place)
        except BaseException as error:
            place.leave()
            if isinstance(error, UsageError) or not isinstance(error, Exception):
                raise
            log.warning("job not started job=%s", request.job_id, exc_info=error)
            yield JobEvent(failed=to_failure(error))
            return
        ended = False
        try:
            async with aclosing(run.events()) as events:
                async for event in events:
                    ended = event.WhichOneof("event") in {"finished", "failed"}
                    if event.WhichOneof("event") == "finished":
                        self._finished[run.job_id] = run.living
                        self._leases.start(run.job_id, self._config.result_lease_s)
                    yield event
        finally:
            if not ended:
                run.cancel("its client went away or cancelled it")

    async def prepare(self, request: PrepareJobRequest) -> PrepareJobReply:
        """Takes part in a job: opens its shuffles, and watches its coordinator as long as it runs."""
        self._check_takes_part()
        plan = await self._state.load_plan(request.plan)
        agents = [from_agent(agent) for agent in request.agents]
        held = await self._state.prepare(
            plan,
            dict(enumerate(request.num_partitions)),
            [member.flight_address for member in agents],
            request.table.owners,
        )
        held.incarnations = tuple(member.incarnation for member in agents)
        coordinator = from_agent(request.coordinator)
        if held.watch is None and coordinator.identity != self._membership.me.identity:
            held.watch = asyncio.get_running_loop().create_task(self._end_without(coordinator, plan.job_id))
        return PrepareJobReply()

    async def reown(self, request: ReownJobRequest) -> ReownJobReply:
        """Takes over the owner table of a new epoch; what is of an older one is refused from now on."""
        table = request.table
        await self._state.reown(request.job_id, epoch=table.epoch, owner_of=table.owners, lost=table.lost)
        return ReownJobReply()

    def check_job(self, request: CheckJobRequest) -> CheckJobReply:
        """Whether the agent that asks still has a part in a job that this one coordinates."""
        asking = from_agent(request.agent)
        run = self._runs.get(request.job_id)
        keepers = self._finished.get(request.job_id, ())
        return CheckJobReply(
            takes_part=run is not None and asking.identity in run.identities,
            keep_result=any(asking.identity == keeper.identity for keeper in keepers),
        )

    async def run_task(self, request: RunTaskRequest) -> RunTaskReply:
        """Runs one attempt; what goes wrong in it is in the reply."""
        self._check_takes_part()
        return await self._state.run_task(request)

    async def end_job(self, request: EndJobRequest) -> EndJobReply:
        """Frees what the job has here; jobs unknown here are remembered as ended."""
        await self._state.end(request.job_id, keep_result=request.keep_result)
        return EndJobReply()

    async def release(self, request: ReleaseJobRequest) -> ReleaseJobReply:
        """Frees a kept result here and, where this agent coordinated the job, on all others; cancels a running job."""
        run = self._runs.get(request.job_id)
        if run is not None:
            run.cancel("it was released")
        self._leases.end(request.job_id)
        members = self._finished.pop(request.job_id, ())
        others = [member for member in members if member.identity != self._membership.me.identity]
        await self._state.end(request.job_id, keep_result=False)
        if others:
            calls = [self._end_on(member, request.job_id) for member in others]
            await asyncio.gather(*calls)
        return ReleaseJobReply()

    def list_jobs(self, request: ListJobsRequest) -> ListJobsReply:
        """The jobs that this agent coordinates, queued ones included."""
        return ListJobsReply(jobs=summaries(self._admission, self._runs))

    async def cancel(self, request: CancelJobRequest) -> CancelJobReply:
        """Cancels a job that this agent coordinates, and waits until the others are told."""
        place, run = self._admission.get(request.job_id), self._runs.get(request.job_id)
        if place is None:
            return CancelJobReply(known=False)
        if run is None:
            place.refuse(JobCancelled(f"job {place.job_id} was cancelled: {request.reason}", job=place.job_id))
        else:
            run.cancel(request.reason)
            await asyncio.wait([asyncio.ensure_future(run.wound_up())], timeout=_CLOSE_WAIT_S)
        return CancelJobReply(known=True)

    def keep_uploads(self, request: KeepUploadsRequest) -> KeepUploadsReply:
        """Tables were uploaded here for a job that waits for its turn."""
        self._state.keep_uploads(request.job_id)
        return KeepUploadsReply()

    async def learn_schema(self, request: LearnSchemaRequest) -> LearnSchemaReply:
        """Calls a function without rows in a worker here."""
        return await self._learner.learn(request)

    async def drain(self, deadline_s: float) -> None:
        """Takes no new job and no new task, and waits for the running ones, at most `deadline_s`."""
        self._draining = True
        self._refuse_queued()
        await self._state.drain(deadline_s)

    async def close(self) -> None:
        """Cancels what still runs, here and on the other agents, and frees it."""
        self._draining = True
        self._refuse_queued()
        for run in list(self._runs.values()):
            run.cancel("its coordinator stops")
        if self._winding_up:
            await asyncio.wait(set(self._winding_up), timeout=_CLOSE_WAIT_S)
        self._leases.close()
        await self._state.close()
        self._watch.close()
        self.sources.close()
        await self._calls.close()

    def _check_submission(self, request: SubmitJobRequest) -> None:
        self._check_not_draining()
        check_versions(request.versions, peer="the client")

    async def _plan_of(self, request: SubmitJobRequest) -> JobPlan:
        plan = await self._state.load_plan(request.plan)
        if plan.job_id != request.job_id:
            raise UsageError(f"the plan of job {request.job_id} is that of job {plan.job_id}", job=request.job_id)
        return plan

    def _refuse_queued(self) -> None:
        for place in self._admission:
            if place.job_id not in self._runs:
                place.refuse(self._draining_error())

    async def _start_run(self, request: SubmitJobRequest, plan: JobPlan, place: Place) -> JobRun:
        agents = await self._agents_for(plan)
        coordinator = Coordinator(
            plan=plan,
            agents=agents,
            partitions_per_slot=self._config.partitions_per_slot,
            split_bytes=self._config.split_bytes,
            attempts_max=self._config.attempts_max,
            hot=self._hot,
            slow=SlowRule(factor=self._config.slow_task_factor),
        )
        run = JobRun(
            job_id=plan.job_id,
            plan=request.plan,
            coordinator=coordinator,
            agents=agents,
            surroundings=Surroundings(
                me=self._membership.me,
                calls=self._calls,
                watch=self._watch,
                peer_deadline_s=self._config.peer_deadline_s,
            ),
        )
        place.check()
        self._runs[plan.job_id] = run
        run.start()
        winding_up = asyncio.get_running_loop().create_task(self._forget(run, place))
        self._winding_up.add(winding_up)
        winding_up.add_done_callback(self._winding_up.discard)
        return run

    async def _agents_for(self, plan: JobPlan) -> list[Member]:
        """The members that answer now; a silent one costs the job its slots, unless it holds some of the job's rows."""
        me = self._membership.me.identity
        members = [member for member in self._membership.members() if not member.draining]
        others = [member for member in members if member.identity != me]
        answering, lost = await self._watch.answering(others)
        holders = {piece.flight_address for pieces in plan.uploads.values() for piece in pieces}
        silent = [member for member in others if member not in answering]
        for member, error in zip(silent, lost, strict=True):
            if member.flight_address in holders:
                raise error
            log.warning("agent left out job=%s agent=%s error=%s", plan.job_id, member.agent_id, error.message)
        return [member for member in members if member not in silent]

    def _forget_finished(self, job_id: str) -> None:
        self._finished.pop(job_id, None)

    async def _forget(self, run: JobRun, place: Place) -> None:
        await run.wound_up()
        del self._runs[run.job_id]
        place.leave()

    async def _end_without(self, coordinator: Member, job_id: str) -> None:
        """Ends a job here when the agent that drives it is lost, or says that the job goes on without this one."""
        lost = asyncio.ensure_future(self._watch.lost(coordinator))
        keep_result = False
        try:
            while not (await asyncio.wait([lost], timeout=self._config.peer_deadline_s))[0]:
                request = CheckJobRequest(job_id=job_id, agent=to_agent(self._membership.me))
                try:
                    reply = await self._calls.check_job(coordinator, request, timeout_s=self._config.peer_deadline_s)
                except Exception as error:  # whether it is lost is found by pings
                    log.debug("coordinator not asked job=%s error=%s", job_id, error)
                    continue
                if not reply.takes_part:
                    keep_result = reply.keep_result
                    log.warning("job ended here, its coordinator goes on without this agent job=%s", job_id)
                    break
            else:
                log.warning(
                    "job ended without its coordinator job=%s error=%s", job_id, lost.exception() or lost.result()
                )
        finally:
            lost.cancel()
        # Ending the job cancels this watch; it must not cancel the ending.
        await asyncio.shield(asyncio.ensure_future(self._state.end(job_id, keep_result=keep_result)))

    async def _end_on(self, member: Member, job_id: str) -> None:
        request = EndJobRequest(job_id=job_id, keep_result=False)
        try:
            await self._calls.end_job(member, request, timeout_s=self._config.peer_deadline_s)
        except Exception as error:  # its lease frees it
            log.info("result not released job=%s agent=%s error=%s", job_id, member.agent_id, error)

    def _check_takes_part(self) -> None:
        """To a job that runs already an agent that drains is one that is lost: the others do its part."""
        if self._draining:
            me = self._membership.me
            raise PeerLost(
                f"agent {me.agent_id} is draining and takes no more part in jobs; run the job again on the others",
                agent=me.agent_id,
                address=me.control_address,
            )

    def _check_not_draining(self) -> None:
        if self._draining:
            raise self._draining_error()

    def _draining_error(self) -> PeerRefused:
        me = self._membership.me
        return PeerRefused(
            f"agent {me.agent_id} is draining and takes no new work; run the job again on the others",
            agent=me.agent_id,
            address=me.control_address,
        )
