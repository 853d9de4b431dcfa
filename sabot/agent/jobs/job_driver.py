"""All that an agent does about jobs: it coordinates those submitted to it, and carries out its part of all others.

Every coroutine runs on the daemon's loop and raises sabot.errors, which the control service puts on the wire. What
blocks runs in threads of bounded pools.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sabot.agent.cluster.membership import Membership
from sabot.agent.cluster.peer_watch import PeerWatch
from sabot.agent.context import AgentContext
from sabot.agent.coordination.hot_partitions import HotRule
from sabot.agent.coordination.job_events import PublishGranted
from sabot.agent.coordination.owner_table import EPOCHS_OF_A_COORDINATOR
from sabot.agent.coordination.range_choice import RangeRule
from sabot.agent.jobs.admission import Admission, Place
from sabot.agent.jobs.coordinator_watch import CoordinatorWatch
from sabot.agent.jobs.job_list import summaries
from sabot.agent.jobs.job_run import JobRun
from sabot.agent.jobs.job_start import JobStarter
from sabot.agent.jobs.job_state import JobState
from sabot.agent.jobs.leases import Leases
from sabot.agent.jobs.peer_calls import PeerCalls
from sabot.agent.jobs.schema_learner import SchemaLearner
from sabot.agent.jobs.source_desk import SourceDesk
from sabot.agent.jobs.upload_keeper import uploads_kept
from sabot.agent.tasks.task_limits import TaskLimits
from sabot.agent.tasks.task_runner import TaskRunner
from sabot.config import Config, JobsSection
from sabot.dataflow.stage import JobPlan
from sabot.errors import JobCancelled, JobTakenOver, PeerLost, PeerRefused, UsageError
from sabot.wire.agent_pb2 import (
    CancelJobReply,
    CancelJobRequest,
    CheckJobReply,
    CheckJobRequest,
    ConfirmJobReply,
    ConfirmJobRequest,
    EndJobReply,
    EndJobRequest,
    GrantPublishReply,
    GrantPublishRequest,
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
    RecordJobReply,
    RecordJobRequest,
    ReleaseJobReply,
    ReleaseJobRequest,
    ReownJobReply,
    ReownJobRequest,
    RunTaskReply,
    RunTaskRequest,
    SubmitJobRequest,
    TakeOverJobReply,
    TakeOverJobRequest,
)
from sabot.wire.convert import from_agent
from sabot.wire.failure import to_failure
from sabot.wire.member import Member
from sabot.wire.versions import check_versions

log = logging.getLogger("sabot.jobs")

_DRAIN_LOOK_S = 0.05
_CLOSE_WAIT_S = 2.0
_CONFIRM_WAIT_S = 1.0


class JobDriver:
    """Made and used on the daemon's loop; `close` it before the context is shut down."""

    def __init__(self, *, context: AgentContext, membership: Membership, config: Config) -> None:
        self._membership = membership
        self._config = config.jobs
        me = membership.me
        context.task_slot_manager.execute_nursery()
        memory_bytes_max = context.shuffle_transport.ledger.snapshot()["bytes_max"]
        runner = TaskRunner(
            agent_id=me.agent_id,
            slots=context.task_slot_manager,
            transport=context.shuffle_transport,
            limits=TaskLimits.of(config, memory_bytes_max=memory_bytes_max),
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
        self.sources = SourceDesk(membership, self._calls)
        self._starter = JobStarter(
            membership=membership,
            calls=self._calls,
            sources=self.sources,
            watch=self._watch,
            config=config.jobs,
            hot=HotRule(factor=config.shuffle.hot_partition_factor),
            ranges=RangeRule.within(memory_bytes_max),
        )
        self._coordinators = CoordinatorWatch(
            me=me, state=self._state, calls=self._calls, watch=self._watch, config=config.jobs
        )
        self._runs: dict[str, JobRun] = {}
        self._finished: dict[str, JobRun] = {}  # whose agents keep a result, while its lease runs
        self._leases = Leases(self._forget_finished)
        self._winding_up: set[asyncio.Task[None]] = set()
        self._draining = False
        self._state.start_sweeping()

    @property
    def config(self) -> JobsSection:
        """Some of it is told to sessions that connect here."""
        return self._config

    def jobs_running(self) -> int:
        """Jobs that this agent coordinates or has prepared for another."""
        return len(self._runs.keys() | self._state.job_ids)

    def tasks_running(self) -> int:
        return self._state.tasks_running

    async def submit(self, request: SubmitJobRequest) -> AsyncGenerator[JobEvent, None]:
        """Coordinates a job and says how it goes. When the generator is closed before the job's end, the job is
        cancelled unless another agent is to take it over.
        """
        self._check_submission(request)
        plan = await self._plan_of(request)
        await self._leave_to_a_later_coordinator(plan.job_id, request.epoch)
        place = self._admission.enter(plan.job_id, plan.weight, first=bool(request.agents))
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
            if isinstance(error, UsageError) or request.epoch or not isinstance(error, Exception):
                raise  # of a job that runs already: its client asks another agent
            log.warning("job not started job=%s", request.job_id, exc_info=error)
            yield JobEvent(failed=to_failure(error))
            return
        try:
            async with aclosing(run.events()) as events:
                async for event in events:
                    if event.WhichOneof("event") == "finished":
                        self._finished[run.job_id] = run
                        self._leases.start(run.job_id, self._config.result_lease_s)
                    yield event
        finally:
            run.outlive_client()

    async def prepare(self, request: PrepareJobRequest) -> PrepareJobReply:
        """Takes part in a job: opens its shuffles, and watches its coordinator as long as it runs."""
        self._check_takes_part(request.job_id)
        run = self._runs.get(request.job_id)  # its plan is loaded already
        plan = await self._state.load_plan(request.plan) if run is None else run.job_plan
        held = await self._state.prepare(plan, request)
        self._coordinators.start(held, from_agent(request.coordinator))
        return PrepareJobReply()

    async def reown(self, request: ReownJobRequest) -> ReownJobReply:
        """Takes over the owner table of a new epoch; what is of an older one is refused from now on."""
        await self._state.reown(request)
        return ReownJobReply()

    def record(self, request: RecordJobRequest) -> RecordJobReply:
        """Keeps a job's journal, for another coordinator."""
        self._state.record(request.job_id, request.journal, request.agents)
        return RecordJobReply()

    def take_over(self, request: TakeOverJobRequest) -> TakeOverJobReply:
        """Takes another agent for the coordinator of a job, and says what is known of the job here."""
        self._check_takes_part(request.job_id)
        if from_agent(request.agent).identity != self._membership.me.identity:
            raise PeerRefused(f"agent {request.agent.agent_id} was restarted, and has nothing of job {request.job_id}")
        held = self._state.take_over(request.job_id, request.epoch)
        run = self._runs.get(request.job_id)
        if run is not None and run.epoch < request.epoch:
            run.drop()
        if held is None:
            return TakeOverJobReply(ended=request.job_id in self._state.ended)
        self._coordinators.start(held, from_agent(request.coordinator))
        return TakeOverJobReply(
            held=True,
            agents=held.request.agents,
            num_partitions=held.request.num_partitions,
            table=held.table,
            journal=held.journal.message(),
        )

    def grant_publish(self, request: GrantPublishRequest) -> GrantPublishReply:
        """The client allows the job's files to appear."""
        self._run_of(request).post(PublishGranted())
        return GrantPublishReply()

    async def confirm(self, request: ConfirmJobRequest) -> ConfirmJobReply:
        """The client has heard that the job has finished: all agents let go of it but for its result."""
        run = self._run_of(request)
        run.confirm()
        await asyncio.wait([asyncio.ensure_future(run.wound_up())], timeout=_CONFIRM_WAIT_S)
        return ConfirmJobReply()

    def _run_of(self, request: ConfirmJobRequest | GrantPublishRequest) -> JobRun:
        run = self._runs.get(request.job_id)
        if run is None or run.epoch != request.epoch:
            raise JobTakenOver(f"job {request.job_id} is not coordinated here by the table of epoch {request.epoch}")
        return run

    def check_job(self, request: CheckJobRequest) -> CheckJobReply:
        """Whether the agent that asks still has a part in a job that this one coordinates; JobTakenOver where another
        one does, of which that agent is to hear yet.
        """
        asking = from_agent(request.agent)
        run = self._runs.get(request.job_id)
        if from_agent(request.coordinator).identity != self._membership.me.identity:
            raise PeerRefused(f"agent {request.coordinator.agent_id} was restarted, and has nothing of any job")
        if run is None:
            self._state.fence.admit(request.job_id, request.epoch)
        keeping = self._finished.get(request.job_id)
        return CheckJobReply(
            takes_part=run is not None and asking.identity in run.identities,
            keep_result=keeping is not None and asking.identity in keeping.identities,
        )

    async def run_task(self, request: RunTaskRequest) -> RunTaskReply:
        """Runs one attempt; what goes wrong in it is in the reply."""
        self._check_takes_part(request.job_id)
        return await self._state.run_task(request)

    async def end_job(self, request: EndJobRequest) -> EndJobReply:
        """Frees what the job has here; jobs unknown here are remembered as ended."""
        self._state.fence.admit(request.job_id, request.epoch)
        await self._state.end(request.job_id, keep_result=request.keep_result)
        return EndJobReply()

    async def release(self, request: ReleaseJobRequest) -> ReleaseJobReply:
        """Frees a kept result here and, where this agent coordinated the job, on all others; cancels a running job."""
        run = self._runs.get(request.job_id)
        if run is not None:
            run.cancel("it was released")
        self._leases.end(request.job_id)
        keeping = self._finished.pop(request.job_id, None)
        await self._state.end(request.job_id, keep_result=False)
        if keeping is not None:
            others = [member for member in keeping.living if member.identity != self._membership.me.identity]
            await asyncio.gather(*(self._end_on(member, keeping) for member in others))
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
        """Takes no new job, and waits at most `deadline_s` until those that it has a part in have ended, whose other
        agents read meanwhile what it holds, and its results have been let go of."""
        self._draining = True
        self._refuse_queued()
        end_s = asyncio.get_running_loop().time() + deadline_s
        while (self._runs or self._state.holds_anything) and asyncio.get_running_loop().time() < end_s:
            await asyncio.sleep(_DRAIN_LOOK_S)

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

    async def _leave_to_a_later_coordinator(self, job_id: str, epoch: int) -> None:
        """The client that lost its stream to this agent may come back to it: what it was told to do before is void."""
        place, run = self._admission.get(job_id), self._runs.get(job_id)
        if place is None or not epoch or (run is not None and run.epoch >= epoch):
            return
        if run is not None:
            run.drop()
        place.refuse(JobTakenOver(f"job {job_id} was submitted again", job=job_id))
        place.leave()

    async def _start_run(self, request: SubmitJobRequest, plan: JobPlan, place: Place) -> JobRun:
        try:
            run = await self._starter.make(request, plan)
        except PeerRefused:  # asked to take over a job that has given this agent up, it watches nobody any more
            await self._state.end(plan.job_id, keep_result=False)
            raise
        place.check()
        self._runs[plan.job_id] = run
        run.start()
        winding_up = asyncio.get_running_loop().create_task(self._forget(run, place))
        self._winding_up.add(winding_up)
        winding_up.add_done_callback(self._winding_up.discard)
        return run

    def _forget_finished(self, job_id: str) -> None:
        self._finished.pop(job_id, None)

    async def _forget(self, run: JobRun, place: Place) -> None:
        await run.wound_up()
        if self._runs.get(run.job_id) is run:
            del self._runs[run.job_id]
        place.leave()
        if run.dropped and not self._state.fence.knows_later(run.job_id, run.epoch):
            held = self._state.get(run.job_id)  # there is a later coordinator, which has not called here
            self._state.fence.admit(run.job_id, run.epoch + EPOCHS_OF_A_COORDINATOR)
            if held is not None:
                self._coordinators.orphan(held)

    async def _end_on(self, member: Member, run: JobRun) -> None:
        request = EndJobRequest(job_id=run.job_id, keep_result=False, epoch=run.epoch)
        try:
            await self._calls.end_job(member, request, timeout_s=self._config.peer_deadline_s)
        except Exception as error:  # its lease frees it
            log.info("result not released job=%s agent=%s error=%s", run.job_id, member.agent_id, error)

    def _check_takes_part(self, job_id: str) -> None:
        """An agent that drains still has its part in what it was prepared for."""
        if self._draining and self._state.get(job_id) is None:
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
