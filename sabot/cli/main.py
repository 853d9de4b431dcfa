"""The command `sabot-agent`: its subcommands, and how an error ends it.

An error is one line on standard error and the exit code of its class: 2 the user's fault, 3 the peer's, 70 ours.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

from sabot.cli.jobs import cancel, jobs
from sabot.cli.local import local
from sabot.cli.ping import ping
from sabot.cli.show import agents, slots, status
from sabot.cli.start import start
from sabot.cli.stop import stop
from sabot.errors import EXIT_INTERNAL, ConfigError, SabotError

EXIT_INTERRUPTED = 130


class ErrorsToExitCodes(click.Group):
    """A group that ends the process with the exit code of whatever a subcommand raises."""

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        sys.exit(_exit_code_of(lambda: super(ErrorsToExitCodes, self).main(args, "sabot-agent", standalone_mode=False)))


def _exit_code_of(run: Callable[[], Any]) -> int:
    try:
        code = run()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except ConfigError as error:
        for problem in error.facts.get("problems") or [error.message]:
            click.echo(f"sabot-agent: {problem}", err=True)
        return error.exit_code
    except SabotError as error:
        click.echo(f"sabot-agent: {' '.join(error.message.split())}", err=True)
        return error.exit_code
    except Exception as error:
        traceback.print_exc()
        click.echo(f"sabot-agent: a bug in Sabot, please report it: {type(error).__name__}: {error}", err=True)
        return EXIT_INTERNAL
    return code if isinstance(code, int) else 0


@click.group(cls=ErrorsToExitCodes, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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


for command in (start, status, agents, slots, jobs, cancel, stop, ping, local):
    cli.add_command(command)


def main() -> NoReturn:
    """The entry point: runs the command line of this process and ends it."""
    cli.main()


if __name__ == "__main__":
    main()
