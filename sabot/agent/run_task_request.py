"""A task to be started, as it goes to its agent."""

from __future__ import annotations

import pickle

from sabot.agent import job_events as ev
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
