"""Agents as processes: how they start, meet, refuse each other and end."""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from sabot.wire import agent_pb2
from tests.agent.processes import AgentProcess, Agents, without_pandas


def told(agent: AgentProcess, code: int, *words: str) -> None:
    """The agent ended with that code and said all of these, in one line."""
    assert agent.wait() == code, agent.stderr()
    last = agent.stderr().splitlines()[-1]
    assert [word for word in words if word not in last] == [], last


def test_ready_agent_prints_one_line_per_address(agents: Agents) -> None:
    a = agents.start("a")
    words = [line.split() for line in a.lines]
    assert a.lines[0] == f"agent a is ready: 1 slots, pid {a.process.pid}"
    assert [line[:2] for line in words[1:4]] == [
        ["control", a.facts["control_address"]],
        ["flight", a.facts["flight_address"]],
        ["http", f"http://{a.facts['http_address']}/metrics"],
    ]
    assert a.facts["pid"] == a.process.pid
    assert a.facts["agent_id"] == "a"


def test_agent_answers_on_all_three_ports(agents: Agents) -> None:
    a = agents.start("a")
    status = a.call("GetStatus", agent_pb2.StatusRequest())
    assert status.agent.incarnation == a.facts["incarnation"]
    with urllib.request.urlopen(f"http://{a.facts['http_address']}/healthz") as reply:
        assert reply.read() == b"serving\n"
    with urllib.request.urlopen(f"http://{a.facts['http_address']}/metrics") as reply:
        assert b'sabot_slots{agent_id="a"} 1.0' in reply.read()
    host, _, port = a.facts["flight_address"].rpartition(":")
    socket.create_connection((host, int(port))).close()


def test_idle_agent_is_small(agents: Agents, tmp_path: Path) -> None:
    a = agents.start("a", environment=without_pandas(tmp_path))
    process = psutil.Process(a.process.pid)
    resident = sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    assert resident < 150 * 2**20


def test_two_agents_know_each_other(agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--join", a.control)
    assert a.members() == b.members()
    assert a.names() == ["a", "b"]
    assert {member.agent_id: member.flight_address for member in a.members()} == {
        "a": a.facts["flight_address"],
        "b": b.facts["flight_address"],
    }


def test_four_agents_that_join_through_each_other_all_meet(agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--join", a.control)
    c = agents.start("c", "--join", b.control)
    d = agents.start("d", "--join", c.control, "--join", a.control)
    assert [each.names() for each in (a, b, c, d)] == [["a", "b", "c", "d"]] * 4


def test_one_member_that_answers_is_enough_to_join(agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--join", "127.0.0.1:1", "--join", a.control)
    assert b.names() == ["a", "b"]


def test_frozen_member_does_not_keep_others_from_joining(agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--join", a.control)
    b.signal(signal.SIGSTOP)
    c = agents.start("c", "--join", a.control, environment={"SABOT_JOBS_PEER_DEADLINE_S": "1"})
    assert a.names() == c.names() == ["a", "b", "c"]
    b.signal(signal.SIGCONT)


def test_frozen_member_does_not_keep_others_from_stopping(agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--join", a.control)
    b.signal(signal.SIGSTOP)
    a.signal(signal.SIGTERM)
    assert a.wait() == 0


def test_changed_slots_are_known_to_all(agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--join", a.control)
    b.call("SetSlots", agent_pb2.SetSlotsRequest(num_slots=3))
    assert [member.slots for member in a.members()] == [1, 3]


def test_autoscaled_slots_are_known_to_all(agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--join", a.control, environment={"SABOT_SLOTS_AUTOSCALE": "2-3"})
    deadline = time.monotonic() + 20
    while [member.slots for member in a.members()] != [1, 2]:
        assert time.monotonic() < deadline
    b.signal(signal.SIGTERM)
    assert b.wait() == 0


def test_agent_that_stops_leaves_the_others(agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--join", a.control)
    c = agents.start("c", "--join", a.control)
    b.signal(signal.SIGTERM)
    assert b.wait() == 0
    assert (a.names(), c.names()) == (["a", "c"], ["a", "c"])
    assert not (b.state_dir / "agent.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_an_idle_agent_with_0(agents: Agents, number: signal.Signals) -> None:
    a = agents.start("a")
    a.signal(number)
    assert a.wait() == 0
    assert not (a.state_dir / "agent.json").exists()


def test_stop_by_a_call_ends_with_0(agents: Agents) -> None:
    a = agents.start("a")
    a.call("Stop", agent_pb2.StopRequest())
    assert a.wait() == 0


def test_running_task_is_waited_for_until_the_deadline_only(agents: Agents) -> None:
    environment = {"SABOT_AGENT_DRAIN_S": "0.2"}
    a = agents.start("a", module="tests.agent.stuck_agent", environment=environment)
    a.signal(signal.SIGTERM)
    assert a.wait() == 1
    assert "key=agent.drain_s" in a.stderr()
    assert "slots did not end" in a.stderr()
    assert not (a.state_dir / "agent.json").exists()


def test_second_signal_ends_at_once(agents: Agents) -> None:
    a = agents.start("a", module="tests.agent.stuck_agent")
    a.signal(signal.SIGTERM)
    a.read_until("draining")
    assert a.process.poll() is None
    a.signal(signal.SIGTERM)
    assert a.wait() == -signal.SIGTERM


def test_agent_back_at_its_address_replaces_the_killed_one(agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--join", a.control)
    b.signal(signal.SIGKILL)
    b.wait()
    again = agents.start("b", "--join", a.control, ports=b.ports())
    assert again.facts["incarnation"] != b.facts["incarnation"]
    assert [member.incarnation for member in a.members()] == [a.facts["incarnation"], again.facts["incarnation"]]


def test_agent_id_of_a_killed_agent_can_be_taken_at_another_address(agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--join", a.control)
    b.signal(signal.SIGKILL)
    b.wait()
    again = agents.start("b", "--join", a.control)
    assert [member.incarnation for member in a.members()] == [a.facts["incarnation"], again.facts["incarnation"]]


def test_agent_id_of_a_live_agent_is_refused_and_changes_nothing(agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--join", a.control)
    before = a.members()
    second = agents.start("b", "--join", a.control, ready=False)
    told(second, 3, "agent_id b is taken", b.control, "--agent-id")
    assert a.members() == b.members() == before


@pytest.mark.parametrize(
    ("flag", "what", "key"),
    [
        ("--port", "the Flight port", "agent.port"),
        ("--control-port", "the control port", "agent.control_port"),
        ("--http-port", "the HTTP port", "agent.http_port"),
    ],
)
def test_port_in_use_is_named_with_the_key_to_change(agents: Agents, flag: str, what: str, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        a = agents.start("a", flag, port, ready=False)
        told(a, 2, what, f"127.0.0.1:{port}", "in use", f"flag {flag}", f"key {key}")
    assert list(a.state_dir.iterdir()) == [a.state_dir / "lock"]


def test_port_of_another_agent_is_in_use(agents: Agents) -> None:
    a = agents.start("a")
    for flag, port in zip(a.ports()[::2], a.ports()[1::2], strict=True):
        told(agents.start("b", flag, port, ready=False), 2, f"127.0.0.1:{port}", "in use")


def test_host_that_no_interface_has_is_named(agents: Agents) -> None:
    told(agents.start("a", "--host", "192.0.2.1", "--insecure", ready=False), 2, "192.0.2.1:0", "agent.host")


def test_member_that_does_not_answer_is_named_with_the_deadline(agents: Agents) -> None:
    environment = {"SABOT_JOBS_PEER_DEADLINE_S": "0.5"}
    a = agents.start("a", "--join", "127.0.0.1:1", ready=False, environment=environment)
    told(a, 3, "127.0.0.1:1", "0.5 s", "--join")


def test_member_that_accepts_and_says_nothing_is_named_with_the_deadline(agents: Agents) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        environment = {"SABOT_JOBS_PEER_DEADLINE_S": "0.5"}
        told(agents.start("a", "--join", address, ready=False, environment=environment), 3, address, "0.5 s")


def test_agent_that_waits_for_a_member_can_be_stopped(agents: Agents) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        a = agents.start("a", "--join", address, ready=False)
        silent.accept()[0].close()
        a.signal(signal.SIGTERM)
        assert a.wait() == 0


def test_own_address_in_the_list_of_members_is_passed_over(agents: Agents) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = str(found.getsockname()[1])
    a = agents.start("a", "--join", f"127.0.0.1:{port}", "--control-port", port)
    assert a.names() == ["a"]


def test_state_dir_in_use_is_refused_and_names_its_agent(agents: Agents) -> None:
    a = agents.start("a")
    b = agents.start("b", "--state-dir", str(a.state_dir), ready=False)
    told(b, 2, str(a.state_dir), "in use by agent a", f"pid {a.process.pid}", "--state-dir")
    assert a.names() == ["a"]


def test_state_dir_of_a_killed_agent_is_taken_over(agents: Agents) -> None:
    a = agents.start("a")
    a.signal(signal.SIGKILL)
    a.wait()
    assert (a.state_dir / "agent.json").exists()
    again = AgentProcess(a.state_dir.parent, "--agent-id", "a")
    try:
        assert again.facts["pid"] == again.process.pid
    finally:
        again.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_state_dir_that_cannot_be_written_is_named(agents: Agents, tmp_path: Path) -> None:
    tmp_path.joinpath("closed").mkdir(mode=0o500)
    a = agents.start("a", "--state-dir", str(tmp_path / "closed" / "a"), ready=False)
    told(a, 2, str(tmp_path / "closed" / "a"), "--state-dir")


def test_file_in_place_of_the_state_dir_is_named(agents: Agents, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told(
        agents.start("a", "--state-dir", str(tmp_path / "file"), ready=False), 2, str(tmp_path / "file"), "--state-dir"
    )


def test_insecure_is_said_at_start_and_in_status(agents: Agents) -> None:
    a = agents.start("a", "--host", "0.0.0.0", "--advertise-host", "127.0.0.1", "--insecure")
    assert a.read_until("insecure: ").startswith("insecure: whoever reaches these ports can run code here")
    assert a.call("GetStatus", agent_pb2.StatusRequest()).insecure
    assert not agents.start("b", "--join", a.control).call("GetStatus", agent_pb2.StatusRequest()).insecure


def test_advertised_host_is_what_others_are_told(agents: Agents) -> None:
    a = agents.start("a", "--advertise-host", "localhost")
    b = agents.start("b", "--join", a.control)
    (seen,) = (member for member in b.members() if member.agent_id == "a")
    hosts = {address.rpartition(":")[0] for address in (seen.control_address, seen.flight_address, seen.http_address)}
    assert hosts == {"localhost"}
