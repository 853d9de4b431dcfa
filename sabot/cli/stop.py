"""`sabot-agent stop`: drains an agent and waits until it is gone."""

from __future__ import annotations

import time

import click
import grpc

from sabot.cli.agent_call import call_agent
from sabot.cli.options import agent_option, timeout_option
from sabot.errors import PeerLost
from sabot.wire import agent_pb2, agent_pb2_grpc
from sabot.wire.addresses import control_channel_options


@click.command()
@agent_option
@timeout_option(60.0)
@click.option("--no-wait", is_flag=True, help="Return at once, while the agent drains.")
def stop(agent: str, timeout_s: float, no_wait: bool) -> None:
    """Let an agent's running tasks finish, then end it; waits until it is gone.

    \b
    sabot-agent stop
    sabot-agent stop --agent node7:8815 --no-wait
    """
    deadline = time.monotonic() + timeout_s
    status = call_agent(agent, "GetStatus", agent_pb2.StatusRequest(), timeout_s=timeout_s)
    with grpc.insecure_channel(agent, options=control_channel_options()) as channel:
        call_agent(agent, "Stop", agent_pb2.StopRequest(), timeout_s=timeout_s)
        name = status.agent.agent_id
        if no_wait:
            click.echo(f"agent {name} is draining")
            return
        if not _gone(channel, status.agent.incarnation, deadline):
            raise PeerLost(
                f"agent {name} at {agent} is still draining after {timeout_s:g} s; ask again (sabot-agent status "
                f"--agent {agent}), or end it at once by a second signal",
                address=agent,
                deadline_s=timeout_s,
            )
    click.echo(f"agent {name} has stopped")


def _gone(channel: grpc.Channel, incarnation: int, deadline: float) -> bool:
    """Asks again and again, a few times a second, because a port that closes tells nobody."""
    stub = agent_pb2_grpc.AgentControlStub(channel)
    while time.monotonic() < deadline:
        try:
            reply = stub.GetStatus(agent_pb2.StatusRequest(), timeout=max(0.01, deadline - time.monotonic()))
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                return True
        else:
            if reply.agent.incarnation != incarnation:
                return True
        time.sleep(0.1)
    return False
