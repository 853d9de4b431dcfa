"""How far the stages of a job are, as told to its client. Pure."""

from __future__ import annotations

from sabot.agent.coordination.job_stages import JobStages
from sabot.agent.coordination.stage_account import skew_of
from sabot.wire.agent_pb2 import StageProgress


def progress_of(stages: JobStages) -> list[StageProgress]:
    """Where each stage stands; of one that is done also how unevenly it has sent its rows."""
    told = []
    for run in stages:
        progress = run.progress()
        if run.shuffles and run.done:
            progress.skew = skew_of(stages.receipts.rows_sent(run.stage.stage_id))
        told.append(progress)
    return told
