"""Carries out one task in the calling thread: reads its split, runs the stage's steps, and hands on the rows.

The thread only waits and passes batches along; every computation runs in a slot. A morsel runs through all morsel steps
between two table steps in one go. Whatever goes wrong comes back in the reply, named by agent, stage and task.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from sabot.agent.files.footers import Footers
from sabot.agent.tasks.exact_batches import exact_batches
from sabot.agent.tasks.file_output import FileWriter
from sabot.agent.tasks.joins import joined, joined_with_copy, schema_joined
from sabot.agent.tasks.large_steps import step_by_parts
from sabot.agent.tasks.memory_limit import typed
from sabot.agent.tasks.partition_answers import partition_answers
from sabot.agent.tasks.rows_sent_on import send_on
from sabot.agent.tasks.sent_epoch import SentEpoch
from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.agent.tasks.source_gate import SourceGate
from sabot.agent.tasks.streamed_steps import Stream, drawn, gathered, grouped_in_part, morsels
from sabot.agent.tasks.task_input import InputAttempts, TaskInput
from sabot.agent.tasks.task_limits import TaskLimits
from sabot.agent.tasks.task_output import ResultPublisher, SampleTaker, ShuffleOutput, TaskOutput
from sabot.agent.tasks.task_partitioning import partitioning_of
from sabot.agent.tasks.task_quarantine import TaskQuarantine
from sabot.agent.tasks.whole_rows import whole_rows
from sabot.agent.tasks.working_memory import working_bytes
from sabot.dataflow.columns import plain_schema, table_without_rows
from sabot.dataflow.execution import MorselSegment, apply_table_step, pipeline_steps, segments
from sabot.dataflow.expressions import project_table
from sabot.dataflow.function_steps import MapBatches, MapPartitions
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle
from sabot.dataflow.stage import (
    Aggregate,
    BroadcastJoin,
    BroadcastShuffle,
    Draw,
    Filter,
    HashShuffle,
    Head,
    JobPlan,
    Join,
    Project,
    ResultOutput,
    RoundRobinShuffle,
    Shuffle,
    Split,
    Stage,
    StoredSplit,
    TableStep,
    WriteOutput,
    shuffle_id,
)
from sabot.errors import JobCancelled, UsageError
from sabot.shuffle.attempts import AttemptWriter
from sabot.shuffle.transport import ShuffleTransport
from sabot.slots import MorselSource, TaskSlotManager
from sabot.slots.operators import Pipeline
from sabot.slots.sized_run import Sizers
from sabot.slots.workers import WorkerLimits, WorkerPool, log_printed
from sabot.wire.agent_pb2 import RunTaskReply
from sabot.wire.failure import CarriedFailure, to_failure
from sabot.wire.py_modules import PyModules

_KEPT_BYTES = 8 << 20  # rows that all go to one partition need not be gathered for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One attempt of one task, with the flag by which it is cancelled."""

    plan: JobPlan
    stage: Stage
    task: int
    attempt: int
    split: Split
    inputs: tuple[InputAttempts, ...]
    cancelled: threading.Event
    workers: WorkerPool | None = None
    epoch: int = 0
    partitions: frozenset[int] | None = None  # a replay sends only these
    digest_placement: bool = False
    copies: tuple[InputAttempts, ...] = ()
    tasks: int = 1  # of the stage
    boundaries: bytes = b""  # of the ranges that it sends rows to
    sent: SentEpoch = field(default_factory=SentEpoch)


class TaskRunner:
    """Runs tasks of one agent; safe from many threads, one for each running task."""

    def __init__(
        self, *, agent_id: str, slots: TaskSlotManager, transport: ShuffleTransport, limits: TaskLimits
    ) -> None:
        self._agent_id = agent_id
        self._slots = slots
        self._transport = transport
        self._limits = limits
        self._gate = SourceGate(transport.ledger)
        self._sizers = Sizers()
        self._footers = Footers()

    def workers_for(self, plan: JobPlan) -> WorkerPool | None:
        """Workers for the job's functions, where it has any; they are to be closed with the job."""
        return self.new_workers(plan.job_id, plan.py_modules) if plan.needs_workers else None

    def new_workers(self, job_id: str, py_modules: PyModules | None) -> WorkerPool:
        """Workers for functions of `job_id`; they are to be closed."""
        self._transport.ledger.measure(self._slots.nursery_pid)
        return self._slots.worker_pool(
            limits=WorkerLimits(memory_bytes_max=self._limits.worker_memory_bytes),
            py_modules=py_modules,
            open_failure=CarriedFailure,
            printed=log_printed(job_id),
        )

    def working_bytes(self, task: Task) -> int:
        """What is to be reserved before the task starts."""
        job_id = task.plan.job_id
        return working_bytes(
            task.stage,
            task.split,
            stored_bytes=lambda stage_id, part: self._transport.stored_bytes_of(shuffle_id(job_id, stage_id), part),
            row_bytes=lambda stage_id: self._transport.row_bytes_of(shuffle_id(job_id, stage_id)),
            scatter_bytes_max=self._limits.scatter_bytes_max,
            partition_bytes_max=self._limits.partition_bytes_max,
            read_bytes_max=self._limits.read_bytes_max,
            grouped_bytes_max=self._limits.grouped_bytes_max,
            copies=[self._copy_bytes(task.plan, given) for given in task.copies],
        )

    def _copy_bytes(self, plan: JobPlan, given: InputAttempts) -> int:
        """What is stored here of a copy, or for one that is pulled what is expected of it."""
        output = plan.stages[given.stage_id].output
        assert isinstance(output, BroadcastShuffle)
        stored = self._transport.stored_bytes_of(shuffle_id(plan.job_id, given.stage_id), given.partition)
        return stored or output.bytes_estimated

    def run(self, task: Task) -> RunTaskReply:
        """Blocks until the attempt has ended; never raises, for a SystemExit of a user's function is not ours."""
        started_s = time.monotonic()
        try:
            reply = self._run(task)
            reply.task_s = time.monotonic() - started_s
        except BaseException as error:
            told = typed(error)
            if task.cancelled.is_set():
                told = JobCancelled(f"job {task.plan.job_id} was cancelled", job=task.plan.job_id)
            told.add_note(f"agent={self._agent_id} stage={task.stage.stage_id} ({task.stage.label}) task={task.task}")
            reply = RunTaskReply(failure=to_failure(told))
            if isinstance(told, UsageError) and "unseen" in told.facts:
                reply.unseen_path, reply.unseen_filesystem = told.facts["unseen"], told.facts["unseen_filesystem"]
            _forget_frames(error)
        if task.sent.epoch is not None:
            reply.sent_epoch = task.sent.epoch
        return reply

    def _run(self, task: Task) -> RunTaskReply:
        calls = SlotCalls(
            self._slots,
            task.cancelled,
            morsel_bytes=self._limits.morsel_bytes,
            job_id=task.plan.job_id,
            weight=task.plan.weight,
            gate=self._gate,
        )
        given = TaskInput(
            task.plan,
            task.stage,
            task.split,
            task.inputs,
            agent_id=self._agent_id,
            timeout_s=self._limits.wait_s_max,
            footers=self._footers,
            read_bytes_max=self._limits.read_bytes_max,
            epoch=task.epoch,
        )
        reply = RunTaskReply()
        if isinstance(task.split, StoredSplit):
            return self._send_on(task, task.split, calls)
        quarantine = TaskQuarantine(stage_id=task.stage.stage_id, task=task.task, calls=calls)
        output = self._open_output(task, calls)
        try:
            for batches in self._steps(task, given, calls, quarantine):
                reply.rows_out += sum(batch.num_rows for batch in batches)
                output.write(batches)
                del batches  # while the next are made, what is written may go to disk
                calls.check_cancelled()
            output.finish(reply)
        except BaseException:
            output.abort()
            raise
        finally:
            calls.close()
        given.account(reply)
        quarantine.account(reply)
        reply.slots.extend(calls.used.slots())
        return reply

    def _send_on(self, task: Task, split: StoredSplit, calls: SlotCalls) -> RunTaskReply:
        name, wait_s = shuffle_id(task.plan.job_id, task.stage.stage_id), self._limits.wait_s_max
        try:
            writer = self._open_writer(task, name)
            return send_on(name, task.task, split, writer, calls, transport=self._transport, timeout_s=wait_s)
        finally:
            calls.close()

    def _open_output(self, task: Task, calls: SlotCalls) -> TaskOutput:
        job_id, stage = task.plan.job_id, task.stage
        match stage.output:
            case HashShuffle() | RoundRobinShuffle() | BroadcastShuffle() | HomeShuffle() | RangeShuffle():
                return self._open_shuffle_output(task, stage.output, calls)
            case ResultOutput():
                return ResultPublisher(
                    self._transport,
                    calls,
                    stage.schema,
                    # An attempt that counts no more may have published, and its agent may run the next one.
                    name=f"{job_id}/result" + (f"/{task.attempt}" if task.attempt else ""),
                    partition=task.task,
                    agent_id=self._agent_id,
                    kept_bytes_max=self._limits.partition_bytes_max,
                )
            case WriteOutput():
                return FileWriter(
                    stage.output,
                    calls,
                    stage.schema,
                    job_id=job_id,
                    task=task.task,
                    attempt=task.attempt,
                    epoch=task.epoch,
                )

    def _open_writer(self, task: Task, name: str) -> AttemptWriter:
        output = task.stage.output
        assert isinstance(output, Shuffle)
        open_writer = partial(
            self._transport.attempt_writer,
            name,
            task=task.task,
            attempt=task.attempt,
            partitioning=partitioning_of(
                output,
                task=task.task,
                tasks=task.tasks,
                num_partitions=self._transport.server.num_partitions(name),
                boundaries=task.boundaries,
            ),
            partitions=task.partitions,
            digest_placement=task.digest_placement,
        )
        return task.sent.open(open_writer)

    def _open_shuffle_output(self, task: Task, output: Shuffle, calls: SlotCalls) -> ShuffleOutput:
        sample, schema, gathered_bytes = None, task.stage.schema, self._limits.scatter_bytes_max
        if isinstance(output, HomeShuffle):
            sample = SampleTaker(calls, schema, output.sample_keys, seed=task.task)
            gathered_bytes = min(gathered_bytes, _KEPT_BYTES)
        return ShuffleOutput(
            partial(self._open_writer, task, shuffle_id(task.plan.job_id, task.stage.stage_id)),
            calls,
            schema,
            scatter_bytes_max=gathered_bytes,
            timeout_s=self._limits.wait_s_max,
            sample=sample,
        )

    def _steps(
        self, task: Task, given: TaskInput, calls: SlotCalls, quarantine: TaskQuarantine
    ) -> Iterator[list[pa.RecordBatch]]:
        """The rows after all steps, batch by batch where no step needs the whole table."""
        stage, steps = task.stage, segments(task.stage.steps)
        copies = {copy.stage_id: given.copy(copy, self._transport, calls) for copy in task.copies}
        large = given.large(self._transport, calls, self._limits.partition_bytes_max)
        if large is not None:
            started = step_by_parts(stage.steps, large, calls, given.source, self._limits.partition_bytes_max)
            stream, schema, steps = started.stream, started.schema, segments(started.steps_left)
        elif steps and isinstance(steps[0], Join):
            join, *steps = steps
            assert isinstance(join, Join)
            with whole_rows(join, task.split):
                sides = given.tables(self._transport, calls)
                table = joined(join, sides, given.source, calls)
            stream, schema = iter([table.to_batches()]), table.schema
            del sides, table
        else:
            stream = map(pa.Table.to_batches, given.stream(self._transport, calls))
            schema = given.schema
        for position, step in enumerate(steps):
            if isinstance(step, MorselSegment):
                pipeline = Pipeline(pipeline_steps(step.steps), workers=task.workers)
                # All tasks of a stage do the same: a later one begins with the size that an earlier one has found.
                name = f"{shuffle_id(calls.job_id, stage.stage_id)}/{position}"
                self._sizers.attach_named(pipeline.native_operator, name)
                if step.batch_rows is not None:
                    stream = exact_batches(stream, schema, step.batch_rows, calls)
                stream = morsels(pipeline, stream, given.source, calls, whole=step.batch_rows is not None)
                if step.quarantining is not None:
                    stream = quarantine.without_failed(step.quarantining, stream)
                schema = schema_after(step, schema)
            elif isinstance(step, Draw):
                stream = drawn(step, task.task, stream, given.source, calls)
                schema = schema.append(pa.field(step.name, pa.float64()))
            elif isinstance(step, Aggregate) and step.each_row is not None:
                grouped_bytes_max = self._limits.grouped_bytes_max
                stream = grouped_in_part(step, stream, schema, given.source, calls, bytes_max=grouped_bytes_max)
                schema = schema_after(MorselSegment(steps=(step.each_row,)), schema)
            elif isinstance(step, MapPartitions):
                with whole_rows(step):
                    whole = gathered(stream, schema, None)
                stream = partition_answers(step, whole, calls, workers=task.workers, source=given.source)
                schema = plain_schema(step.schema)
                del whole
            elif isinstance(step, BroadcastJoin):
                copy = copies.pop(step.stage_id)
                stream = joined_with_copy(
                    step,
                    stream,
                    schema,
                    copy,
                    source=given.source,
                    calls=calls,
                    bytes_max=self._limits.partition_bytes_max,
                )
                schema = schema_joined(step, schema, copy.schema)
            else:
                table = _with_all_rows(task, step, stream, schema, source=given.source, calls=calls)
                stream, schema = iter([table.to_batches()]), table.schema
        return stream


def _with_all_rows(
    task: Task, step: TableStep, stream: Stream, schema: pa.Schema, *, source: MorselSource, calls: SlotCalls
) -> pa.Table:
    """What a step gives that has to have all rows; of a Head as many as it asks for."""
    with whole_rows(step, task.split):
        whole = gathered(stream, schema, step.rows if isinstance(step, Head) else None)
        run_plan = partial(calls.run_plan, source=source)
        return calls.call(partial(apply_table_step, step, [whole], run_plan), source=source)


def _forget_frames(error: BaseException | None) -> None:
    """Lets go of what the task's frames hold, its batches and connections: the slots may keep the exception, unseen by
    the garbage collector, in a run which those frames hold in turn.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def schema_after(segment: MorselSegment, schema: pa.Schema) -> pa.Schema:
    """The plain schema of what a segment gives, known without any row."""
    for step in segment.steps:
        match step:
            case Filter():
                pass
            case Project():
                schema = project_table(table_without_rows(schema), step.names, step.expressions).schema
            case MapBatches():
                schema = step.schema
    return plain_schema(schema)
