"""`sabot-agent slots --timeline FILE`: the last morsels of an agent's slots, as a Parquet file."""

from __future__ import annotations

from pathlib import Path

import click
import pyarrow as pa

from sabot.cli.agent_call import call_agent
from sabot.errors import UsageError
from sabot.wire import agent_pb2


def write_timeline(agent: str, path: Path, *, timeout_s: float) -> None:
    """Asks the agent and writes the file; says on standard error how many morsels are in it."""
    import pyarrow.parquet  # a tenth of a second to import, which other commands need not pay

    reply = call_agent(agent, "GetTimeline", agent_pb2.TimelineRequest(), timeout_s=timeout_s)
    with pa.ipc.open_stream(reply.arrow_stream) as reader:
        table = reader.read_all()
    try:
        pyarrow.parquet.write_table(table, path)
    except OSError as error:
        raise UsageError(f"the timeline cannot be written to {path}: {error}; give a file that can be") from error
    click.echo(f"{table.num_rows} morsels written to {path}", err=True)
