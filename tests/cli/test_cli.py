"""sabot-agent, as its user types it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import Result

import sabot
from sabot.cli.main import cli
from sabot.wire.versions import PROTOCOL
from tests.agent.processes import AgentProcess, Agents

Run = Callable[..., Result]
NOBODY = "127.0.0.1:1"


def read(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def failed(result: Result, code: int, *words: str) -> None:
    """It ended with that code, printed nothing to be read, and one line to standard error with all of these."""
    assert result.exit_code == code
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("sabot-agent: ")
    assert [word for word in words if word not in line] == [], line


@pytest.mark.parametrize("command", [[], *([name] for name in cli.commands)])
def test_help_teaches_by_example(run: Run, command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert f"sabot-agent {' '.join(command)}".rstrip() in result.stdout.partition("\n")[2]


def test_commands_are_those_of_the_manual() -> None:
    assert set(cli.commands) == {"start", "status", "agents", "slots", "jobs", "cancel", "stop", "ping", "local"}


def test_status_is_json_for_programs(run: Run, agent: AgentProcess) -> None:
    status = read(run("status", "--agent", agent.control, "--json"))
    assert (status["agent_id"], status["control_address"], status["insecure"]) == ("a", agent.control, False)
    assert int(status["incarnation"], 16) == agent.facts["incarnation"]
    assert status["resident_bytes"] > 0
    assert status["versions"]["protocol"] == PROTOCOL


def test_status_is_a_table_for_people(run: Run, agent: AgentProcess) -> None:
    result = run("status", "--agent", agent.control)
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert rows["insecure"].strip() == "no"
    assert str(agent.state_dir) in result.stdout


def test_agents_lists_members_and_whether_they_answer(run: Run, agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--join", a.control)
    b.signal(signal.SIGKILL)
    b.wait()
    rows = read(run("agents", "--agent", a.control, "--json"))
    assert [(row["agent_id"], row["state"]) for row in rows] == [("a", "up"), ("b", "no answer")]
    table = run("agents", "--agent", a.control).stdout.splitlines()
    assert [line.split()[0] for line in table[1:]] == ["a", "b"]
    assert b.control in table[2]


def test_slots_are_shown_and_set(run: Run, agents: Agents) -> None:
    a = agents.start("a")
    assert read(run("slots", "--agent", a.control, "--json"))["num_slots"] == 1
    changed = read(run("slots", "--agent", a.control, "--set", "3", "--json"))
    assert [slot["busy"] for slot in changed["slots"]] == [False] * 3
    shown = run("slots", "--agent", a.control).stdout.splitlines()
    assert shown[0] == "3 slots, 3 available, 0 morsels queued"
    assert len(shown) == 5


def test_timeline_is_written_as_parquet(run: Run, agent: AgentProcess, tmp_path: Path) -> None:
    with sabot.connect(agent.control) as session:
        rows = session.from_table(pa.table({"a": list(range(1_000))})).filter(pc.field("a") > 10).to_table()
    assert rows.num_rows == 989
    file = tmp_path / "last.parquet"
    result = run("slots", "--agent", agent.control, "--timeline", str(file))
    table = pq.read_table(file)
    assert result.stderr.startswith(f"{table.num_rows} morsels written to ")
    assert {"slot", "job", "operator", "start", "end", "gil_wait"} <= set(table.column_names)
    assert "filter" in table["operator"].to_pylist()
    assert all(job for job in table["job"].to_pylist())


def test_timeline_that_cannot_be_written_is_the_users_fault(run: Run, agent: AgentProcess, tmp_path: Path) -> None:
    failed(run("slots", "--agent", agent.control, "--timeline", str(tmp_path / "no" / "a.parquet")), 2, "no/a.parquet")


@pytest.mark.parametrize("number", ["0", "-1", "1025", "x"])
def test_number_of_slots_that_cannot_be_is_refused(run: Run, number: str) -> None:
    result = run("slots", "--set", number)
    assert result.exit_code == 2
    assert "'--set'" in result.stderr


def test_stop_waits_until_the_agent_is_gone(run: Run, agents: Agents) -> None:
    a = agents.start("a")
    result = run("stop", "--agent", a.control)
    assert (result.exit_code, result.stdout) == (0, "agent a has stopped\n")
    assert a.wait() == 0


def test_stop_gives_up_on_an_agent_that_drains_too_long(run: Run, agents: Agents) -> None:
    a = agents.start("a", module="tests.agent.stuck_agent")
    failed(run("stop", "--agent", a.control, "--timeout", "0.5"), 3, "agent a", a.control, "0.5 s", "draining")
    rows = read(run("agents", "--agent", a.control, "--json"))
    assert [row["state"] for row in rows] == ["draining"]


def test_stop_without_wait_returns_at_once(run: Run, agents: Agents) -> None:
    a = agents.start("a", module="tests.agent.stuck_agent")
    assert run("stop", "--agent", a.control, "--no-wait").stdout == "agent a is draining\n"


@pytest.mark.parametrize("command", ["status", "agents", "slots", "jobs", "stop"])
def test_agent_that_is_not_there_is_the_peers_fault(run: Run, command: str) -> None:
    failed(run(command, "--agent", NOBODY), 3, NOBODY, "cannot be reached", "sabot-agent start")


def test_agent_that_does_not_answer_is_named_with_the_deadline(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        failed(run("status", "--agent", address, "--timeout", "0.3"), 3, address, "0.3 s")


def test_flight_port_in_place_of_the_control_port_is_told_so(run: Run, agent: AgentProcess) -> None:
    failed(run("status", "--agent", agent.facts["flight_address"]), 3, "control port", "8815")


@pytest.mark.parametrize("address", ["8815", "node7", "::1:8815", "node7:99999"])
def test_address_that_cannot_be_is_refused_before_anything_is_done(run: Run, address: str) -> None:
    result = run("status", "--agent", address)
    assert result.exit_code == 2
    assert "write HOST:PORT" in result.stderr


def test_ping_asks_the_flight_port(run: Run, agent: AgentProcess) -> None:
    flight = agent.facts["flight_address"]
    said = f"{flight} answers: incarnation {agent.facts['incarnation']:016x}\n"
    for target in (("--flight", flight), ("--agent", agent.control), ("--state-dir", str(agent.state_dir))):
        assert (run("ping", *target).exit_code, run("ping", *target).stdout) == (0, said)


def test_ping_of_nobody_is_the_peers_fault(run: Run) -> None:
    failed(run("ping", "--flight", NOBODY), 3, NOBODY)


def test_ping_finds_the_one_agent_with_its_state_in_the_default_place(
    run: Run, agents: Agents, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    a = agents.start("a", state_dir=tmp_path / "sabot" / "a")
    assert run("ping").stdout.startswith(a.facts["flight_address"])


def test_ping_says_when_another_agent_answers_there(run: Run, agent: AgentProcess, tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_text(json.dumps({**agent.facts, "incarnation": 7}))
    failed(run("ping", "--state-dir", str(tmp_path)), 3, "another agent answers", agent.facts["flight_address"])


def test_ping_of_a_state_dir_without_an_agent_is_the_users_fault(run: Run, tmp_path: Path) -> None:
    failed(run("ping", "--state-dir", str(tmp_path)), 2, str(tmp_path), "agent.json")


def test_faults_of_the_configuration_are_one_line_each(run: Run) -> None:
    result = run("start", "--port", "99999", "--log-level", "loud", "--host", "0.0.0.0")
    assert result.exit_code == 2
    starts = [line.split(": ")[1] for line in result.stderr.splitlines()]
    assert starts == ["agent.port", "log.level", "agent.host", "agent.advertise_host"]


def test_every_flag_of_start_is_a_key_of_the_configuration() -> None:
    from sabot.config import KEYS

    names = {parameter.name for parameter in cli.commands["start"].params} - {"file"}
    assert {str(name).replace("__", ".") for name in names} <= set(KEYS)


def test_configuration_file_is_read(agents: Agents, tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("slots: {count: 3}\nagent: {id: from-the-file}\n")
    a = agents.start("from-the-flag", "--config", str(file))
    assert a.lines[0].startswith("agent from-the-flag is ready: 1 slots")


def test_local_cluster_runs_until_it_is_interrupted(run: Run) -> None:
    command = [sys.executable, "-m", "sabot.cli.main", "local", "-n", "2", "--slots", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            address = lines[0].split()[3].rstrip(",")
            assert f'sabot.connect("{address}")' in lines[2]
            assert [row["state"] for row in read(run("agents", "--agent", address, "--json"))] == ["up", "up"]
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0
            assert process.stdout.read() == "the cluster has ended\n"
        finally:
            process.kill()
    failed(run("status", "--agent", address), 3, address)
