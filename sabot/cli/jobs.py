"""`sabot-agent jobs` and `cancel`: what runs in the cluster, and the end of it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from sabot.cli.agent_call import call_agent
from sabot.cli.options import agent_option, json_option, timeout_option
from sabot.cli.show import print_json, print_table
from sabot.errors import PeerError, UsageError
from sabot.wire import agent_pb2
from sabot.wire.convert import from_agent
from sabot.wire.member import Member

_SHOWN = ("job_id", "state", "coordinator", "stages", "tasks", "elapsed", "weight")


@click.command()
@agent_option
@json_option
@timeout_option(5.0)
def jobs(agent: str, as_json: bool, timeout_s: float) -> None:
    """List the jobs of the cluster, as the agents that coordinate them see them.

    An agent that does not answer is said on standard error; its jobs are not listed.

    \b
    sabot-agent jobs
    sabot-agent jobs --json | jq -r '.[].job_id'
    """
    rows = [
        _facts_of(member, job) for member, found in _jobs_by_member(agent, timeout_s=timeout_s) for job in found.jobs
    ]
    if as_json:
        print_json(rows)
        return
    print_table([name.replace("_", " ") for name in _SHOWN], [[_shown(row)[name] for name in _SHOWN] for row in rows])


@click.command()
@agent_option
@timeout_option(10.0)
@click.argument("job_id")
def cancel(agent: str, timeout_s: float, job_id: str) -> None:
    """Cancel a job, queued or running, whichever agent coordinates it. The first letters of its id are enough.

    \b
    sabot-agent cancel 3f9c2e
    """
    found = [
        (member, job.job_id)
        for member, reply in _jobs_by_member(agent, timeout_s=timeout_s)
        for job in reply.jobs
        if job.job_id.startswith(job_id)
    ]
    if not found:
        raise UsageError(
            f"no agent that answers has a job {job_id}: it has ended, or was never there (sabot-agent jobs)"
        )
    if len(found) > 1:
        raise UsageError(
            f"{job_id} begins the ids of {len(found)} jobs; give more of it: {', '.join(i for _, i in found)}"
        )
    member, full = found[0]
    request = agent_pb2.CancelJobRequest(job_id=full, reason="by sabot-agent cancel")
    reply = call_agent(member.control_address, "CancelJob", request, timeout_s=timeout_s)
    click.echo(f"job {full} was cancelled" if reply.known else f"job {full} has ended by itself meanwhile")


def _jobs_by_member(agent: str, *, timeout_s: float) -> list[tuple[Member, Any]]:
    """What each member that answers says of its jobs."""
    reply = call_agent(agent, "ListAgents", agent_pb2.ListAgentsRequest(), timeout_s=timeout_s)
    members = [from_agent(member) for member in reply.agents]

    def ask(member: Member) -> Any:
        try:
            return call_agent(member.control_address, "ListJobs", agent_pb2.ListJobsRequest(), timeout_s=timeout_s)
        except PeerError as error:
            click.echo(f"sabot-agent: agent {member.agent_id} is left out: {error.message}", err=True)
            return None

    with ThreadPoolExecutor(max_workers=32) as pool:
        answers: Sequence[Any] = list(pool.map(ask, members))
    return [(member, answer) for member, answer in zip(members, answers, strict=True) if answer is not None]


def _facts_of(member: Member, job: Any) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "state": job.state,
        "jobs_ahead": job.jobs_ahead,
        "coordinator": member.agent_id,
        "stages_done": sum(bool(stage.tasks_total) and stage.tasks_done == stage.tasks_total for stage in job.stages),
        "stages_total": len(job.stages),
        "tasks_done": sum(stage.tasks_done for stage in job.stages),
        "tasks_total": sum(stage.tasks_total for stage in job.stages),
        "elapsed_s": round(job.elapsed_s, 3),
        "weight": job.weight,
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "state": f"queued behind {row['jobs_ahead']}" if row["jobs_ahead"] else row["state"],
        "stages": f"{row['stages_done']}/{row['stages_total']}",
        "tasks": f"{row['tasks_done']}/{row['tasks_total']}",
        "elapsed": f"{row['elapsed_s']:.1f} s",
        "weight": f"{row['weight']:g}",
    }
