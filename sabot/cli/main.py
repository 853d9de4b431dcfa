"""The command `sabot-agent`: its subcommands, and how an error ends it.

An error is one line on standard error and the exit code of its class: 2 the user's fault, 3 the peer's, 70 ours.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click

from sabot.cli.local import local
from sabot.cli.ping import ping
from sabot.cli.show import agents, slots, status
from sabot.cli.start import start
from sabot.cli.stop import stop
from sabot.errors import EXIT_INTERNAL, ConfigError, SabotError

EXIT_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="sabot")
def cli() -> None:
    """Run Sabot's agents and look at them.

    An agent lends this node's cores as task slots and its network as an Arrow Flight shuffle. Agents that joined each
    other are a cluster; sabot.connect("HOST:8815") uses it from Python.

    \b
    A cluster of two on this machine, by hand:
      sabot-agent start --agent-id a
      sabot-agent start --agent-id b --port 0 --control-port 0 --http-port 0 --join 127.0.0.1:8815
      sabot-agent agents
      sabot-agent stop
    The same at once, until Ctrl-C:
      sabot-agent local -n 2
    """


for command in (start, status, agents, slots, stop, ping, local):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point; ends the process."""
    try:
        code = cli.main(args=arguments, prog_name="sabot-agent", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except ConfigError as error:
        for problem in error.facts.get("problems") or [error.message]:
            click.echo(f"sabot-agent: {problem}", err=True)
        sys.exit(error.exit_code)
    except SabotError as error:
        click.echo(f"sabot-agent: {' '.join(error.message.split())}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        traceback.print_exc()
        click.echo(f"sabot-agent: a bug in Sabot, please report it: {type(error).__name__}: {error}", err=True)
        sys.exit(EXIT_INTERNAL)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
