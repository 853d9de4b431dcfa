"""A task to be started, as it goes to its agent and as it comes there."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Collection

from sabot.agent.coordination import job_events as ev
from sabot.agent.tasks import task_input
from sabot.agent.tasks.task_runner import Task
from sabot.dataflow.stage import JobPlan
from sabot.slots.workers import WorkerPool
from sabot.wire.agent_pb2 import InputAttempts, RunTaskRequest


def run_task_request(job_id: str, command: ev.StartTask) -> RunTaskRequest:
    return RunTaskRequest(
        job_id=job_id,
        stage_id=command.stage_id,
        task=command.task,
        attempt=command.attempt,
        split=pickle.dumps(command.split),
        inputs=[
            InputAttempts(stage_id=stage_id, attempts=attempts, tasks=command.read_tasks)
            for stage_id, attempts in command.inputs
        ],
        epoch=command.epoch,
        partitions=sorted(command.partitions or ()),
        copies=[
            InputAttempts(stage_id=copy.stage_id, attempts=copy.attempts, partition=copy.partition)
            for copy in command.copies
        ],
        tasks=command.tasks,
        boundaries=command.ranges.boundaries if command.ranges is not None else b"",
    )


def task_of(
    request: RunTaskRequest,
    plan: JobPlan,
    cancelled: threading.Event,
    *,
    workers: WorkerPool | None,
    repeatable: Collection[int],
) -> Task:
    """The attempt of a task of `plan`; the replays of stages that are `repeatable` need no proof."""
    return Task(
        plan=plan,
        stage=next(stage for stage in plan.stages if stage.stage_id == request.stage_id),
        task=request.task,
        attempt=request.attempt,
        split=pickle.loads(request.split),
        inputs=tuple(
            task_input.InputAttempts(stage_id=given.stage_id, attempts=tuple(given.attempts), tasks=tuple(given.tasks))
            for given in request.inputs
        ),
        copies=tuple(
            task_input.InputAttempts(stage_id=given.stage_id, attempts=tuple(given.attempts), partition=given.partition)
            for given in request.copies
        ),
        cancelled=cancelled,
        workers=workers,
        epoch=request.epoch,
        partitions=frozenset(request.partitions) or None,
        tasks=request.tasks,
        boundaries=request.boundaries,
        digest_placement=request.stage_id not in repeatable,
    )
