"""`sabot-agent ping`: whether an agent's data plane answers, for container health checks."""

from __future__ import annotations

from pathlib import Path

import click

from sabot.agent.state_dir import read_agent_file
from sabot.cli.agent_call import call_agent
from sabot.cli.options import DEFAULT_AGENT, AddressType, timeout_option
from sabot.config import default_state_dir
from sabot.errors import PeerRefused, UsageError
from sabot.shuffle.client import ShuffleClient
from sabot.wire import agent_pb2


@click.command(short_help="Check that an agent's data plane answers.")
@click.option("--flight", type=AddressType(), help="Flight port to ping.")
@click.option("--agent", type=AddressType(), help="Ask this control port which Flight port to ping.")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Ping the agent whose agent.json is there.")
@timeout_option(2.0)
def ping(flight: str | None, agent: str | None, state_dir: Path | None, timeout_s: float) -> None:
    """Ask an agent's Flight port for a sign of life; exit code 0, or 3 when there is none.

    The agent answers without Python, so that user functions which hold the interpreter do not make it look dead. With
    no option it is the one agent that has its state in the default place, else the one at the default control port.

    \b
    sabot-agent ping
    sabot-agent ping --flight node7:8816
    """
    address, incarnation = _target(flight, agent, state_dir, timeout_s)
    client = ShuffleClient()
    try:
        reply = client.ping(address, timeout_s=timeout_s)
    finally:
        client.close()
    if incarnation is not None and reply.incarnation != incarnation:
        raise PeerRefused(
            f"another agent answers at {address}: incarnation {reply.incarnation:016x}, not {incarnation:016x}",
            address=address,
        )
    click.echo(f"{address} answers: incarnation {reply.incarnation:016x}")


def _target(flight: str | None, agent: str | None, state_dir: Path | None, timeout_s: float) -> tuple[str, int | None]:
    if flight is not None:
        return flight, None
    if state_dir is not None:
        found = _in_state_dir(state_dir)
        if found is None:
            raise UsageError(f"{state_dir} has no agent.json: no agent with this state dir is ready")
        return found
    if agent is None:
        running = [found for found in map(_in_state_dir, _default_state_dirs()) if found is not None]
        if len(running) == 1:
            return running[0]
    reply = call_agent(agent or DEFAULT_AGENT, "GetStatus", agent_pb2.StatusRequest(), timeout_s=timeout_s)
    return reply.agent.flight_address, reply.agent.incarnation


def _default_state_dirs() -> list[Path]:
    root = default_state_dir("any").parent
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _in_state_dir(folder: Path) -> tuple[str, int] | None:
    content = read_agent_file(folder)
    return None if content is None else (str(content["flight_address"]), int(str(content["incarnation"])))
