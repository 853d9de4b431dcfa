"""`sabot-agent start`: an agent in the foreground."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from sabot.config import load_config


@click.command()
@click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="YAML file; configs/agent.yaml has every key.",
)
@click.option("--agent-id", "agent__id", metavar="NAME", help="Name in the cluster.  [default: this machine's name]")
@click.option("--host", "agent__host", metavar="HOST", help="Interface for all ports.  [default: 127.0.0.1]")
@click.option(
    "--port", "agent__port", type=int, metavar="PORT", help="Flight port, for rows; 0: any free one.  [default: 8816]"
)
@click.option(
    "--control-port",
    "agent__control_port",
    type=int,
    metavar="PORT",
    help="gRPC port; 0: any free one.  [default: 8815]",
)
@click.option("--http-port", "agent__http_port", type=int, metavar="PORT", help="Metrics and health.  [default: 8817]")
@click.option(
    "--advertise-host", "agent__advertise_host", metavar="HOST", help="What others are told.  [default: the host]"
)
@click.option("--join", "agent__join", multiple=True, metavar="HOST:PORT", help="Control port of a member; repeatable.")
@click.option("--slots", "slots__count", type=int, metavar="N", help="Task slots.  [default: one per core]")
@click.option(
    "--memory",
    "memory__bytes_max",
    metavar="SIZE",
    help="What the agent may hold, as 4GiB.  [default: 60% of the machine's]",
)
@click.option(
    "--state-dir",
    "agent__state_dir",
    metavar="DIR",
    help="Folder of agent.json.  [default: ~/.local/state/sabot/AGENT_ID]",
)
@click.option(
    "--insecure",
    "agent__insecure",
    is_flag=True,
    default=None,
    help="Allow a host that others reach. Jobs carry Python code: only in a network that you trust as a whole.",
)
@click.option("--log-level", "log__level", metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
def start(file: Path | None, **flags: Any) -> int:
    """Start an agent here and stay in the foreground.

    A flag wins over SABOT_* (agent.control_port is SABOT_AGENT_CONTROL_PORT), that over the file, that over the
    default. SIGTERM, Ctrl-C or `sabot-agent stop` let running tasks finish (key agent.drain_s), a second signal does
    not.

    \b
    The first agent, and one more on the same machine:
      sabot-agent start --agent-id a
      sabot-agent start --agent-id b --port 0 --control-port 0 --http-port 0 --join 127.0.0.1:8815
    On a node of a network that you trust as a whole:
      sabot-agent start --host 0.0.0.0 --advertise-host node1 --insecure --join node0:8815
    """
    from sabot.agent.daemon import serve

    given = {key.replace("__", "."): value for key, value in flags.items() if value not in (None, ())}
    config = load_config(file=file, flags=given)
    logging.basicConfig(
        level=config.log.level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    return serve(config, announce=click.echo)
