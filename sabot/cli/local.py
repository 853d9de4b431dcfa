"""`sabot-agent local`: a cluster of agents on this machine, in the foreground."""

from __future__ import annotations

import signal
import threading

import click


@click.command()
@click.option("-n", "--agents", type=click.IntRange(1, 64), default=2, show_default=True, help="Agents to start.")
@click.option("--slots", type=click.IntRange(1, 1024), default=1, show_default=True, help="Task slots of each.")
def local(agents: int, slots: int) -> None:
    """Start a cluster on this machine; Ctrl-C ends it.

    Every agent is a process of its own on free ports of the loopback interface.

    \b
    sabot-agent local -n 4 --slots 2
    """
    from sabot.client.local_cluster import LocalCluster

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with LocalCluster(agents=agents, slots=slots) as cluster:
        for agent in cluster.agents:
            click.echo(f"agent {agent.agent_id}: control {agent.address}, pid {agent.pid}")
        click.echo(f'sabot.connect("{cluster.agents[0].address}"); Ctrl-C ends the cluster')
        ended.wait()
    click.echo("the cluster has ended")
