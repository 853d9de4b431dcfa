"""An agent whose running task never ends, nor does its slot; prints "draining" when it waits. Run as a process."""

from __future__ import annotations

import asyncio
import threading

import click

from sabot.agent import daemon
from sabot.agent.cluster.membership import Membership
from sabot.agent.context import AgentContext
from sabot.cli.main import main
from sabot.config import Config
from tests.agent.fake_jobs import FakeJobs


def stuck(context: AgentContext, membership: Membership, config: Config) -> FakeJobs:
    jobs = FakeJobs()
    jobs.running = 1
    context.task_slot_manager.call_in_slot(threading.Event().wait)

    async def wait_out_the_deadline() -> None:
        click.echo("draining")
        await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=config.agent.drain_s)

    jobs.on_drain = wait_out_the_deadline
    return jobs


def serve(config: Config, *, announce: object) -> int:
    return asyncio.run(daemon.Daemon(config, announce=click.echo, make_jobs=stuck).run())


if __name__ == "__main__":
    daemon.serve = serve
    daemon.CLOSE_DEADLINE_S = 0.2
    main()
