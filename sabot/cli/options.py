"""Options that several commands have, so that they read the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sabot.errors import UsageError
from sabot.wire.addresses import parse_address

DEFAULT_AGENT = "127.0.0.1:8815"

Command = Callable[..., Any]


class AddressType(click.ParamType[str]):
    """HOST:PORT, checked before anything is done."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(parse_address(str(value)))
        except UsageError as error:
            self.fail(error.message, param, ctx)


def agent_option(command: Command) -> Command:
    return click.option(
        "--agent",
        type=AddressType(),
        default=DEFAULT_AGENT,
        show_default=True,
        help="Control port of the agent to ask.",
    )(command)


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def timeout_option(default_s: float) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        return click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0, min_open=True),
            default=default_s,
            show_default=True,
            metavar="SECONDS",
            help="Give up after this long.",
        )(command)

    return add
