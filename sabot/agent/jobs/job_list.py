"""What an agent says of the jobs that it coordinates."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sabot.agent.jobs.admission import Admission, Place
from sabot.agent.jobs.job_run import JobRun
from sabot.wire.agent_pb2 import JobSummary


def summaries(admission: Admission, runs: Mapping[str, JobRun]) -> list[JobSummary]:
    """One of each job that is queued or runs, in order of arrival."""
    return [_summary(place, runs.get(place.job_id)) for place in admission]


def _summary(place: Place, run: JobRun | None) -> JobSummary:
    return JobSummary(
        job_id=place.job_id,
        state="queued" if run is None else "running",
        jobs_ahead=place.jobs_ahead or 0,
        elapsed_s=asyncio.get_running_loop().time() - place.since_s,
        weight=place.weight,
        stages=[] if run is None else run.progress(),
    )
