"""A user's way into a cluster: sources of datasets, running their jobs, and who is there.

The agent that a session was made with coordinates its jobs; when it is lost another one does. A session owns the
results of its jobs: closing it frees them.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cloudpickle
import pyarrow as pa

from sabot.client.analysis import Explanation
from sabot.client.control import ControlClient
from sabot.client.coordinators import Coordinators, answers
from sabot.client.file_source import local_path
from sabot.client.flight_connections import FlightConnections
from sabot.client.job import Job, Seen
from sabot.client.job_run import Deadline, Inbox, Told, run_job
from sabot.client.progress import ProgressView
from sabot.client.quarantine import quarantines_from
from sabot.client.readers import Readers
from sabot.client.receipt import receipt_from, stats_from
from sabot.client.releaser import Releaser
from sabot.client.result import Result, ResultPart
from sabot.client.schema_learning import SchemaLearning
from sabot.client.seat import Seat
from sabot.client.uploads import Uploader
from sabot.client.watchdog import Watchdog
from sabot.dataflow.learned_schema import SchemaProbe
from sabot.dataflow.persisted import persisted_pieces
from sabot.dataflow.persisted_dataset import PersistedDataset
from sabot.dataflow.plan import Node, tables_of
from sabot.dataflow.planner import plan_job
from sabot.dataflow.quarantine_notice import tell_quarantined
from sabot.dataflow.stage import JobPlan, TablePiece, WriteOutput
from sabot.errors import LimitReached, UsageError
from sabot.wire import agent_pb2
from sabot.wire.addresses import MESSAGE_BYTES_MAX
from sabot.wire.member import Member
from sabot.wire.py_modules import PyModules


class Session(Readers):
    """Made by `sabot.connect`; a context manager. Datasets and results made by it work until it is closed."""

    def __init__(
        self,
        control: ControlClient,
        agent: Member,
        *,
        members: Sequence[Member] = (),
        progress: bool | None = None,
        py_modules: PyModules | None = None,
        weight: float = 1.0,
        job_timeout_s: float | None = None,
        broadcast_bytes_max: int = 0,
        peer_deadline_s: float | None = None,
    ) -> None:
        Deadline.after(job_timeout_s)  # a fault of it is told now
        self._coordinators = Coordinators(control, agent, members, peer_deadline_s=peer_deadline_s)
        self.broadcast_bytes_max = broadcast_bytes_max
        self._progress = progress
        self._py_modules = py_modules
        self._weight = weight
        self._job_timeout_s = job_timeout_s
        self._watchdog = Watchdog(lambda: self._coordinators.silence_s_max)
        self._schemas = SchemaLearning(self._coordinators, py_modules, self._watchdog)
        self._jobs: weakref.WeakSet[Job] = weakref.WeakSet()
        self._results: weakref.WeakSet[Result] = weakref.WeakSet()
        self._connections = FlightConnections()
        self._releaser = Releaser(self._coordinators.release)
        self._closed = False

    @property
    def agent(self) -> Member:
        """The agent that coordinates this session's jobs now."""
        return self._coordinators.agent

    def run(
        self,
        root: Node,
        *,
        output: WriteOutput | None = None,
        timeout_s: float | None = None,
        progress: bool | None = None,
    ) -> Result:
        """Runs the job and waits for its end; raises its failure as its own type. Ctrl-C cancels it."""
        with ProgressView(self._progress if progress is None else progress) as view:
            job = self._submit(root, output, timeout_s, on_queued=view.queued, on_progress=view.update)
            try:
                return job.result()
            finally:
                job.cancel()
                job.wait_ended()

    def persist(self, root: Node, *, timeout_s: float | None = None) -> PersistedDataset:
        """Runs the job and makes a Dataset of its result, which stays with the agents."""
        result = self.run(root, timeout_s=timeout_s)
        tell_quarantined(result, stacklevel=3)
        return PersistedDataset(self, root, result)

    def analyze(self, root: Node) -> Explanation:
        """Runs the job, drops its answer, and says what its stages did."""
        plan = plan_job(root, job_id="explain", broadcast_bytes_max=self.broadcast_bytes_max)
        with self.run(root) as result:
            return Explanation(plan, result.stats)

    def submit(self, root: Node, *, output: WriteOutput | None = None, timeout_s: float | None = None) -> Job:
        """Starts the job and returns; LimitReached is its failure when it has not ended within `timeout_s`."""
        return self._submit(root, output, timeout_s)

    def learn_schema(self, probe: SchemaProbe, schema: pa.Schema) -> pa.Schema:
        """The columns that a function of the user's returns for no rows of `schema`: an agent's worker calls it."""
        self._check_open()
        return self._schemas.learn(probe, schema)

    def _submit(self, root: Node, output: WriteOutput | None, timeout_s: float | None, **told: Any) -> Job:
        self._check_open()
        deadline = Deadline.after(self._job_timeout_s if timeout_s is None else timeout_s)
        job_id = uuid.uuid4().hex
        if output is not None:
            output = replace(output, folder=local_path(output.folder, Path.cwd(), output.filesystem), filesystem=None)
        plan = plan_job(root, job_id=job_id, output=output, broadcast_bytes_max=self.broadcast_bytes_max)
        plan = replace(plan, weight=self._weight, uploads=persisted_pieces(root))
        if plan.needs_workers:
            plan = replace(plan, py_modules=self._py_modules)
        tables = tables_of(root)
        packed = self._pack(plan)  # before the upload, so that what cannot be sent fails at once
        if tables:
            plan = replace(plan, uploads={**plan.uploads, **self._upload(job_id, tables)})
            packed = self._pack(plan)

        def replan(lost: str, successor: Member) -> bytes:
            nonlocal plan
            uploads = Uploader(job_id, self._watchdog).move(tables, plan.uploads, lost, successor.flight_address)
            plan = replace(plan, uploads=uploads)
            return self._pack(plan)

        seat = Seat(self._coordinators, job_id, packed, replan=replan)

        def follow(inbox: Inbox, seen: Seen, held: Node = root) -> Result:  # persisted rows go when nobody holds them
            finished = run_job(seat, Told(queued=seen.queued, progress=seen.stages), inbox, deadline)
            return self._result(plan, finished)

        job = Job(job_id, follow, **told)
        self._jobs.add(job)
        return job

    def _upload(self, job_id: str, tables: Mapping[str, pa.Table]) -> dict[str, tuple[TablePiece, ...]]:
        members = [agent for agent in self.agents() if not agent.draining and answers(agent)]
        try:
            slots = {agent.flight_address: agent.slots for agent in members}
            return Uploader(job_id, self._watchdog).upload(tables, slots)
        except BaseException:
            for agent in members:
                self._drop_uploads(job_id, agent)
            raise

    def _drop_uploads(self, job_id: str, agent: Member) -> None:
        control = ControlClient(agent.control_address, timeout_s=self._coordinators.timeout_s)
        control.end_job(job_id)
        control.close()

    def _pack(self, plan: JobPlan) -> bytes:
        try:
            packed: bytes = cloudpickle.dumps(plan)
        except Exception as error:
            raise UsageError(
                f"the job cannot be sent to the agents: a function of it holds what cannot be pickled: {error}; "
                "make such things (locks, files, connections) inside the function"
            ) from error
        if len(packed) > MESSAGE_BYTES_MAX - (1 << 20):
            raise LimitReached(
                f"the job's functions and what they hold measure {len(packed):,} bytes, the limit is "
                f"{MESSAGE_BYTES_MAX:,}; give large data as a table (from_table) and join it",
                bytes=len(packed),
            )
        return packed

    def _result(self, plan: JobPlan, finished: agent_pb2.JobFinished) -> Result:
        result = Result(
            schema=plan.stages[-1].schema,
            parts=tuple(
                ResultPart(
                    partition=m.partition,
                    flight_address=m.flight_address,
                    ticket=m.ticket,
                    rows=m.rows,
                    content_sum=m.content_sum,
                    agent_id=m.agent_id,
                )
                for m in finished.partitions
            ),
            receipt=receipt_from(plan.job_id, finished),
            stats=stats_from(finished),
            watchdog=self._watchdog,
            quarantines=quarantines_from(plan, finished),
            connect=self._connections.lend,
        )
        result.on_close(self._releaser.watch(result, plan.job_id))
        self._results.add(result)
        return result

    def agents(self) -> list[Member]:
        """The members of the cluster as the session's agent knows them now."""
        self._check_open()
        return self._coordinators.list_agents()

    def slot_stats(self) -> dict[str, list[dict[str, int | bool]]]:
        """For each agent_id its slots' counters, as `TaskSlotManager.get_slot_stats` gives them."""
        return {agent.agent_id: self._slot_stats_of(agent) for agent in self.agents()}

    def _slot_stats_of(self, agent: Member) -> list[dict[str, int | bool]]:
        control = ControlClient(agent.control_address, timeout_s=self._coordinators.timeout_s)
        try:
            slots = control.get_slots().slots
        finally:
            control.close()
        return [{field.name: getattr(slot, field.name) for field in slot.DESCRIPTOR.fields} for slot in slots]

    def close(self) -> None:
        """Cancels this session's jobs and frees their results on the agents; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel("with its session, which was closed")
        for job in jobs:
            job.wait_ended()
        for result in list(self._results):
            result.close(because="its session was closed")
        self._releaser.close()
        self._watchdog.close()
        self._connections.close()
        self._coordinators.close()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("this session is closed; make another with sabot.connect")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<sabot.Session at {self.agent.control_address}{', closed' if self._closed else ''}>"
