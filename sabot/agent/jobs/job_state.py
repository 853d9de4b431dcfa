"""What this agent holds of jobs, whoever coordinates them: plans, running tasks, shuffles, results under a lease.

Used on the daemon's loop; tasks run in threads of a bounded pool. A job that has ended is remembered for a while, so
that a command which comes late finds it ended and makes nothing anew. Nothing outlives its job but a kept result.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from sabot.agent.coordination.job_journal import KeptJournal
from sabot.agent.jobs.job_fence import JobFence
from sabot.agent.jobs.leases import Leases
from sabot.agent.jobs.run_task_request import task_of
from sabot.agent.tasks.sent_epoch import SentEpoch
from sabot.agent.tasks.task_room import TaskRoom
from sabot.agent.tasks.task_runner import Task, TaskRunner
from sabot.dataflow.execution import wire_schema
from sabot.dataflow.repeatable import repeatable_stages
from sabot.dataflow.stage import JobPlan, Shuffle, Stage, shuffle_id
from sabot.errors import JobCancelled, PeerRefused, UsageError
from sabot.shuffle.transport import ShuffleTransport
from sabot.slots.workers import WorkerPool
from sabot.wire.agent_pb2 import (
    Agent,
    JobJournal,
    OwnerTable,
    PrepareJobRequest,
    ReownJobRequest,
    RunTaskReply,
    RunTaskRequest,
)

TASK_THREADS_MAX = 64
"""Tasks of all jobs that run at once on an agent; they wait more than they work, for all work is done in slots."""

_ENDED_MAX = 4096
_UPLOAD = "/upload/"

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class HeldJob:
    """A prepared job. `watch` ends it when its coordinator is lost; `workers` run its functions and end with it."""

    plan: JobPlan
    workers: WorkerPool | None = None
    flags: dict[threading.Event, SentEpoch] = field(default_factory=dict)  # of the attempts that run here
    watch: asyncio.Task[None] | None = None
    request: PrepareJobRequest = field(default_factory=PrepareJobRequest)  # as it was prepared, without the plan
    table: OwnerTable = field(default_factory=OwnerTable)  # the newest
    journal: KeptJournal = field(default_factory=KeptJournal)
    keep_result: bool = False  # should the coordinator be lost: all is done, and the client may know
    repeatable: frozenset[int] = frozenset()  # stages whose replays need no proof

    def check_names(self, agents: Sequence[Agent]) -> None:
        """PeerRefused where a coordinator means other agents by their numbers than an earlier one did."""
        if any(ours.incarnation != other.incarnation for ours, other in zip(self.request.agents, agents, strict=False)):
            raise PeerRefused(f"job {self.plan.job_id} is held here with other agents than its coordinator names")

    def learn(self, agents: Sequence[Agent]) -> None:
        """The job's agents, of whom there may be more than when it was prepared."""
        self.request.agents.extend(agents[len(self.request.agents) :])


class JobState:
    """The jobs of one agent; `runner` carries out their tasks."""

    def __init__(
        self,
        *,
        agent_id: str,
        transport: ShuffleTransport,
        runner: TaskRunner,
        result_lease_s: float,
        upload_lease_s: float,
    ) -> None:
        self._agent_id = agent_id
        self._transport = transport
        self._runner = runner
        self._result_lease_s = result_lease_s
        self._upload_lease_s = upload_lease_s
        self.fence = JobFence(agent_id)
        self._jobs: dict[str, HeldJob] = {}
        self.ended: OrderedDict[str, None] = OrderedDict()
        self._kept = Leases(self._on_lease_ended)
        self._queued = Leases(lambda _: None)  # jobs that wait elsewhere for their turn, with tables uploaded here
        self._room = TaskRoom(transport.ledger)
        self._running: set[asyncio.Future[RunTaskReply]] = set()
        self._tasks = ThreadPoolExecutor(TASK_THREADS_MAX, thread_name_prefix="sabot-task")
        self._work = ThreadPoolExecutor(4, thread_name_prefix="sabot-jobs")
        self._sweep: asyncio.TimerHandle | None = None

    @property
    def tasks_running(self) -> int:
        return len(self._running)

    @property
    def job_ids(self) -> set[str]:
        """Jobs prepared here that have not ended."""
        return set(self._jobs)

    @property
    def holds_anything(self) -> bool:
        """Whether there are jobs, tasks or rows of results here."""
        results = (name.partition("/")[0] for name in self._transport.published_names())
        return bool(self._jobs or self._running) or any(job_id in self._kept for job_id in results)

    async def load_plan(self, packed: bytes) -> JobPlan:
        """The plan in `packed`; UsageError where this agent lacks a module that the user's functions need."""
        return await self.in_thread(lambda: load_plan(packed, self._agent_id))

    async def in_thread(self, function: Callable[[], T]) -> T:
        """`function` where it may block for a while."""
        return await asyncio.get_running_loop().run_in_executor(self._work, function)

    async def prepare(self, plan: JobPlan, request: PrepareJobRequest) -> HeldJob:
        """Opens the job's shuffles. A second call for the same job does nothing."""
        self.fence.admit(plan.job_id, request.table.epoch)
        held = self._jobs.get(plan.job_id)
        if held is not None:
            held.check_names(request.agents)
            held.learn(request.agents)
            return held
        self._check_not_ended(plan.job_id)
        for job_id in plan.results_read:
            if job_id in self._kept:
                self._kept.start(job_id, self._result_lease_s)
        held = self._jobs[plan.job_id] = HeldJob(
            plan, self._runner.workers_for(plan), repeatable=repeatable_stages(plan)
        )
        held.request.CopyFrom(request)
        held.request.ClearField("plan")
        held.table.CopyFrom(request.table)
        num_partitions = dict(enumerate(request.num_partitions))
        owners = [agent.flight_address for agent in request.agents]
        owner_of = tuple(request.table.owners)
        try:
            await self.in_thread(lambda: self._open_shuffles(plan, num_partitions, owners, owner_of))
            if request.table.epoch:  # it comes to a job that has changed its table before
                await self.in_thread(lambda: self._reown_shuffles(plan, list(request.agents), request.table))
        except BaseException:  # its coordinator may have gone meanwhile, and nobody else would end it
            await asyncio.shield(self.end(plan.job_id, keep_result=False))
            raise
        if self._jobs.get(plan.job_id) is not held:
            await self._drop(plan.job_id)
        self._check_not_ended(plan.job_id)
        return held

    async def reown(self, request: ReownJobRequest) -> None:
        """Gives the job's shuffles the owner table of a new epoch, unless a newer one is known. Attempts that send
        by an older one end.
        """
        job_id, table = request.job_id, request.table
        self.fence.admit(job_id, table.epoch)
        held = self.held(job_id)
        if table.epoch >= held.table.epoch:
            held.table.CopyFrom(table)
            held.keep_result = request.keep_result
        held.learn(request.agents)
        agents = list(held.request.agents)
        try:
            await self.in_thread(lambda: self._reown_shuffles(held.plan, agents, table))
        except Exception:
            self._check_not_ended(job_id)  # its shuffles are gone because it has ended here meanwhile
            raise
        for cancelled, sent in held.flags.items():
            if sent.is_before(table.epoch):
                cancelled.set()
                sent.abort()

    def record(self, job_id: str, journal: JobJournal, agents: Sequence[Agent]) -> None:
        """Keeps what the coordinator has written down, and who has come to the job."""
        self.fence.admit(job_id, journal.epoch)
        held = self.held(job_id)
        held.learn(agents)
        if not held.journal.keep(journal):
            raise PeerRefused(
                f"agent {self._agent_id} lacks what comes before record {journal.first} of the journal of job {job_id}",
                job=job_id,
                agent=self._agent_id,
            )

    def take_over(self, job_id: str, epoch: int) -> HeldJob | None:
        """The job has another coordinator from now on: what earlier ones have begun here ends. None: not held here."""
        self.fence.admit(job_id, epoch)
        held = self._jobs.get(job_id)
        if held is not None:
            if held.watch is not None:
                held.watch.cancel()
                held.watch = None
            for flag in held.flags:
                flag.set()
            self._room.look_again()
        return held

    def get(self, job_id: str) -> HeldJob | None:
        return self._jobs.get(job_id)

    async def run_task(self, request: RunTaskRequest) -> RunTaskReply:
        """Runs one attempt; cancelling the call, ending the job, or another coordinator cancels it."""
        self.fence.admit(request.job_id, request.epoch)
        held = self.held(request.job_id)
        cancelled = threading.Event()
        task = task_of(request, held.plan, cancelled, workers=held.workers, repeatable=held.repeatable)
        held.flags[cancelled] = task.sent
        future = asyncio.ensure_future(self._run_when_there_is_room(task))
        self._running.add(future)
        future.add_done_callback(lambda _: self._task_ended(request.job_id, held, cancelled, future))
        try:
            reply = await asyncio.shield(future)
            self.fence.admit(request.job_id, request.epoch)
            return reply
        finally:
            cancelled.set()
            self._room.look_again()

    async def _run_when_there_is_room(self, task: Task) -> RunTaskReply:
        async with self._room.reserved(self._runner.working_bytes(task), task.cancelled):
            if task.cancelled.is_set():
                job_id = task.plan.job_id
                raise JobCancelled(f"job {job_id} was cancelled", job=job_id, agent=self._agent_id)
            return await asyncio.get_running_loop().run_in_executor(self._tasks, self._runner.run, task)

    async def end(self, job_id: str, *, keep_result: bool) -> None:
        """Cancels the job's tasks and frees what it has here, but the result where that is kept, for its lease."""
        held = self._jobs.pop(job_id, None)
        self._remember_ended(job_id)
        if held is not None:
            if held.watch is not None:
                held.watch.cancel()
            for flag in held.flags:
                flag.set()
            self._room.look_again()
            if held.workers is not None:
                held.workers.close()
        if keep_result and held is not None:
            self._kept.start(job_id, self._result_lease_s)
            plan = held.plan
            await self.in_thread(lambda: self._drop_all_but_result(plan))
        else:
            self._kept.end(job_id)
            await self._drop(job_id)

    def start_sweeping(self) -> None:
        """From now on drop tables that clients have uploaded and never used in a job, once their lease has run out."""
        self._sweep = asyncio.get_running_loop().call_later(self._upload_lease_s, self._sweep_uploads)

    def keep_uploads(self, job_id: str) -> None:
        """What was uploaded for the job is kept as if it had just come, or its result, where that is here."""
        if job_id in self._kept:
            self._kept.start(job_id, self._result_lease_s)
        else:
            self._queued.start(job_id, self._upload_lease_s)

    async def close(self) -> None:
        """Ends every job; threads end with what their slots are doing."""
        if self._sweep is not None:
            self._sweep.cancel()
        for job_id in list(self._jobs):
            await self.end(job_id, keep_result=False)
        self._kept.close()
        self._queued.close()
        self._tasks.shutdown(wait=False, cancel_futures=True)
        self._work.shutdown(wait=False, cancel_futures=True)

    def held(self, job_id: str) -> HeldJob:
        """The job as it is held here; raises why it is not."""
        self._check_not_ended(job_id)
        held = self._jobs.get(job_id)
        if held is None:
            raise PeerRefused(
                f"agent {self._agent_id} knows no job {job_id}: it was not prepared here; run the job again",
                job=job_id,
                agent=self._agent_id,
            )
        return held

    def _open_shuffles(
        self, plan: JobPlan, num_partitions: dict[int, int], owners: list[str], owner_of: Sequence[int]
    ) -> None:
        for stage in _shuffling(plan):
            self._transport.open_shuffle(
                shuffle_id(plan.job_id, stage.stage_id),
                num_partitions=num_partitions[stage.stage_id],
                owners=owners,
                owner_of=owner_of,
                schema=wire_schema(stage.schema),
                job=plan.job_id,
                weight=plan.weight,
            )

    def _reown_shuffles(self, plan: JobPlan, agents: Sequence[Agent], table: OwnerTable) -> None:
        lost = frozenset(table.lost)
        for stage in _shuffling(plan):
            name = shuffle_id(plan.job_id, stage.stage_id)
            self._transport.reown(
                name,
                epoch=table.epoch,
                owners=[agent.flight_address for agent in agents],
                owner_of=tuple(table.owners),
                given_up=[agents[agent].incarnation for agent in lost],
                gone={agents[agent].flight_address for agent in lost}.difference(
                    agent.flight_address for index, agent in enumerate(agents) if index not in lost
                ),
            )

    def _task_ended(
        self, job_id: str, held: HeldJob, cancelled: threading.Event, future: asyncio.Future[RunTaskReply]
    ) -> None:
        self._running.discard(future)
        held.flags.pop(cancelled, None)
        if not held.flags and self._jobs.get(job_id) is not held and job_id not in self._kept:
            self._drop_soon(job_id)  # what the last task published after the job had ended

    def _check_not_ended(self, job_id: str) -> None:
        if job_id in self.ended:
            raise JobCancelled(f"job {job_id} has ended on agent {self._agent_id}", job=job_id, agent=self._agent_id)

    def _remember_ended(self, job_id: str) -> None:
        self.ended[job_id] = None
        while len(self.ended) > _ENDED_MAX:
            self.ended.popitem(last=False)

    async def _drop(self, job_id: str) -> None:
        await self.in_thread(lambda: self._transport.drop(job_id))

    def _on_lease_ended(self, job_id: str) -> None:
        if any(job_id in held.plan.results_read for held in self._jobs.values()):
            self._kept.start(job_id, self._result_lease_s)  # a job that runs may have yet to read it
        else:
            self._drop_soon(job_id)

    def _drop_soon(self, job_id: str) -> None:
        self._work.submit(self._transport.drop, job_id)

    def _drop_all_but_result(self, plan: JobPlan) -> None:
        self._transport.drop(f"{plan.job_id}/upload")
        for stage in plan.stages:
            self._transport.drop(shuffle_id(plan.job_id, stage.stage_id))

    def _sweep_uploads(self) -> None:
        for name, age_s in self._transport.published_names().items():
            job_id, upload, _ = name.partition(_UPLOAD)
            if upload and not self._awaits_uploads(job_id) and age_s >= self._upload_lease_s:
                self._drop_soon(name)
        self.start_sweeping()

    def _awaits_uploads(self, job_id: str) -> bool:
        return job_id in self._jobs or job_id in self._queued


def _shuffling(plan: JobPlan) -> list[Stage]:
    return [stage for stage in plan.stages if isinstance(stage.output, Shuffle)]


def load_plan(packed: bytes, agent_id: str) -> JobPlan:
    try:
        plan = pickle.loads(packed)
    except Exception as error:
        raise UsageError(
            f"agent {agent_id} cannot load the job's functions: {type(error).__name__}: {error}; "
            "install the module there, or define the functions in the script itself",
            agent=agent_id,
        ) from error
    if not isinstance(plan, JobPlan):
        raise UsageError(f"a plan is a JobPlan, not {type(plan).__name__}")
    return plan
