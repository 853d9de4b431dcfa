"""What a job has come to, when all of its stages are done. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sabot.agent.coordination.job_stages import JobStages
from sabot.agent.coordination.stage_progress import progress_of
from sabot.agent.coordination.stage_run import StageRun
from sabot.wire.agent_pb2 import JobFinished
from sabot.wire.member import Member


def finished(stages: JobStages, agents: Sequence[Member], *, joined: Sequence[int], keep_result: bool) -> JobFinished:
    """The parts of the answer, in order, where agents are to keep one; and how it came about."""
    last = stages.last
    return JobFinished(
        partitions=[reply.result for reply in last.replies()] if keep_result else [],
        shuffles=stages.receipts.shuffles(),
        stages=progress_of(stages),
        schema=last.stage.schema.serialize().to_pybytes(),
        agents_lost=[agents[agent].agent_id for agent in sorted(stages.table.lost - stages.left)],
        quarantined=[part for run in stages for part in run.quarantined()],
        agents_joined=[agents[agent].agent_id for agent in joined],
    )


def files_of(last: StageRun) -> tuple[str, ...]:
    """What the visible attempts have written, for publishing: files without rows only where no file has any."""
    written = [file for reply in last.replies() for file in reply.written]
    return tuple(file.path for file in written if file.rows) or tuple(file.path for file in written)
