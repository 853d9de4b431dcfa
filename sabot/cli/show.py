"""`sabot-agent status`, `agents` and `slots`: what an agent says of itself and of its cluster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from sabot.cli.agent_call import call_agent
from sabot.cli.options import agent_option, json_option, timeout_option
from sabot.cli.timeline import write_timeline
from sabot.errors import PeerError
from sabot.shuffle.client import ShuffleClient
from sabot.wire import agent_pb2
from sabot.wire.convert import from_agent
from sabot.wire.member import Member

PING_DEADLINE_S = 1.0
UNLIMITED_WIDTH = 240


@click.command()
@agent_option
@json_option
@timeout_option(5.0)
def status(agent: str, as_json: bool, timeout_s: float) -> None:
    """Show what one agent is doing.

    \b
    sabot-agent status
    sabot-agent status --agent node7:8815 --json
    """
    reply = call_agent(agent, "GetStatus", agent_pb2.StatusRequest(), timeout_s=timeout_s)
    me, versions = reply.agent, reply.versions
    facts = {
        **_facts_of(from_agent(me)),
        "insecure": reply.insecure,
        "uptime_s": round(reply.uptime_s, 3),
        "resident_bytes": reply.resident_bytes,
        "stored_bytes": reply.stored_bytes,
        "jobs_running": reply.jobs_running,
        "tasks_running": reply.tasks_running,
        "queue_depth": reply.queue_depth,
        "state_dir": reply.state_dir,
        "versions": {
            "sabot": versions.sabot,
            "pyarrow_major": versions.pyarrow_major,
            "python": versions.python,
            "protocol": versions.protocol,
        },
    }
    if as_json:
        print_json(facts)
        return
    shown = {
        **facts,
        "insecure": "yes: whoever reaches its ports can run code in it" if reply.insecure else "no",
        "resident_bytes": f"{reply.resident_bytes / 2**20:.1f} MiB",
        "stored_bytes": f"{reply.stored_bytes / 2**20:.1f} MiB",
        "versions": f"sabot {versions.sabot}, pyarrow {versions.pyarrow_major}, Python {versions.python}, "
        f"protocol {versions.protocol}",
    }
    print_table(
        ("what", "value"), [(name.removesuffix("_bytes").replace("_", " "), value) for name, value in shown.items()]
    )


@click.command()
@agent_option
@json_option
@timeout_option(5.0)
def agents(agent: str, as_json: bool, timeout_s: float) -> None:
    """List the members of the cluster, and whether they answer.

    \b
    sabot-agent agents
    sabot-agent agents --json | jq -r '.[].control_address'
    """
    reply = call_agent(agent, "ListAgents", agent_pb2.ListAgentsRequest(), timeout_s=timeout_s)
    members = [from_agent(member) for member in reply.agents]
    rows = [{**_facts_of(member), "state": state} for member, state in zip(members, _states(members), strict=True)]
    if as_json:
        print_json(rows)
        return
    columns = ("agent_id", "state", "slots", "control_address", "flight_address", "http_address", "incarnation")
    print_table([name.replace("_", " ") for name in columns], [[row[name] for name in columns] for row in rows])


@click.command()
@agent_option
@json_option
@timeout_option(30.0)
@click.option("--set", "num_slots", type=click.IntRange(1, 1024), metavar="N", help="Change the number of slots first.")
@click.option(
    "--timeline",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Also write the slots' last morsels to a Parquet file.",
)
def slots(agent: str, as_json: bool, timeout_s: float, num_slots: int | None, timeline: Path | None) -> None:
    """Show an agent's slots and what they did, or change their number.

    A slot that goes finishes its morsel first; running jobs go on with the slots that are left.

    \b
    sabot-agent slots
    sabot-agent slots --set 4
    sabot-agent slots --timeline last.parquet
    """
    if timeline is not None:
        write_timeline(agent, timeline, timeout_s=timeout_s)
    if num_slots is None:
        reply = call_agent(agent, "GetSlots", agent_pb2.SlotsRequest(), timeout_s=timeout_s)
    else:
        request = agent_pb2.SetSlotsRequest(num_slots=num_slots)
        reply = call_agent(agent, "SetSlots", request, timeout_s=timeout_s)
    rows = [{field.name: getattr(slot, field.name) for field in slot.DESCRIPTOR.fields} for slot in reply.slots]
    if as_json:
        print_json(
            {
                "num_slots": reply.num_slots,
                "available_slots": reply.available_slots,
                "queue_depth": reply.queue_depth,
                "slots": rows,
            }
        )
        return
    click.echo(f"{reply.num_slots} slots, {reply.available_slots} available, {reply.queue_depth} morsels queued")
    header = ("slot", "state", "morsels", "local", "network", "stolen", "busy time")
    print_table(
        header,
        [
            (
                row["slot_id"],
                "busy" if row["busy"] else "idle",
                row["morsels_processed"],
                row["local_morsels"],
                row["network_morsels"],
                row["stolen_morsels"],
                f"{row['total_processing_time_us'] / 1e6:.3f} s",
            )
            for row in rows
        ],
    )


def _facts_of(member: Member) -> dict[str, Any]:
    return {
        "agent_id": member.agent_id,
        "incarnation": f"{member.incarnation:016x}",
        "control_address": member.control_address,
        "flight_address": member.flight_address,
        "http_address": member.http_address,
        "slots": member.slots,
        "draining": member.draining,
    }


def _states(members: Sequence[Member]) -> list[str]:
    """Asks every member's Flight port at once, so that the dead ones together cost one deadline."""
    client = ShuffleClient()

    def state(member: Member) -> str:
        try:
            reply = client.ping(member.flight_address, timeout_s=PING_DEADLINE_S)
        except PeerError:
            return "no answer"
        if reply.incarnation != member.incarnation:
            return "replaced"
        return "draining" if member.draining else "up"

    try:
        with ThreadPoolExecutor(max_workers=32) as pool:
            return list(pool.map(state, members))
    finally:
        client.close()


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    from rich.console import Console  # a tenth of a second to import, which `ping` and `start` need not pay
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNLIMITED_WIDTH  # a pipe has no width, and what is cut off there is lost
    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    console.print(table)
