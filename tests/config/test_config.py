"""The configuration: where a value comes from, and what each fault is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from sabot.config import KEYS, Config, default_state_dir, environment_name, load_config
from sabot.config.keys import Span
from sabot.errors import ConfigError

SHOWN = Path(__file__).parents[2] / "configs" / "agent.yaml"


def problems_of(**arguments: Any) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_config(**{"environment": {}, **arguments})
    problems: list[str] = raised.value.facts["problems"]
    assert all(problem in raised.value.message for problem in problems)
    return problems


def value_of(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def test_nothing_given_is_the_defaults() -> None:
    assert load_config(environment={}) == Config()


def test_shown_file_is_exactly_the_defaults() -> None:
    assert load_config(file=SHOWN, environment={}) == Config()


def test_shown_file_has_every_key_with_a_reason_above_it() -> None:
    lines = SHOWN.read_text().splitlines()
    tree = yaml.safe_load(SHOWN.read_text())
    assert {f"{section}.{key}" for section, keys in tree.items() for key in keys} == set(KEYS)
    for key in KEYS:
        at = next(i for i, line in enumerate(lines) if line.startswith(f"  {key.partition('.')[2]}:"))
        assert lines[at - 1].startswith("  # "), key


SOMETHING_ELSE: dict[str, tuple[Any, str, Any]] = {
    "agent.id": ("node-7", "node-7", "node-7"),
    "agent.host": ("::1", "::1", "::1"),
    "agent.port": (9000, "9000", 9000),
    "agent.control_port": (0, "0", 0),
    "agent.http_port": (9002, "9002", 9002),
    "agent.advertise_host": ("node7", "node7", "node7"),
    "agent.insecure": (True, "yes", True),
    "agent.state_dir": ("/tmp/x", "/tmp/x", "/tmp/x"),
    "agent.join": (["a:1", "[::1]:2"], "a:1, [::1]:2", ("a:1", "[::1]:2")),
    "agent.drain_s": (1, "1", 1.0),
    "slots.count": (3, "3", 3),
    "slots.autoscale": ({"min": 2, "max": 8}, "2-8", Span(min=2, max=8)),
    "slots.morsel_bytes": ("64 KiB", "64 KiB", 65536),
    "slots.timeline_morsels": (0, "0", 0),
    "slots.worker_memory_bytes": ("1 GiB", "1 GiB", 1 << 30),
    "memory.bytes_max": ("2GiB", "2 GiB", 2 << 30),
    "shuffle.open_wait_s": (0.5, "0.5", 0.5),
    "shuffle.stream_timeout_s": (60, "60", 60.0),
    "shuffle.resume_s": (5, "5", 5.0),
    "shuffle.streams_per_peer": (4, "4", 4),
    "shuffle.compression": ("zstd", "zstd", "zstd"),
    "shuffle.stream_idle_s": (60, "60", 60.0),
    "shuffle.streams_max": (64, "64", 64),
    "shuffle.chunk_bytes_max": ("1.5 MiB", "1572864", 1572864),
    "shuffle.scatter_bytes_max": (1 << 20, "1MiB", 1 << 20),
    "shuffle.hot_partition_factor": (3, "3.0", 3.0),
    "spill.dirs": (["/a", "/b"], "/a, /b", ("/a", "/b")),
    "spill.bytes_max": ("1 GiB", "1 GiB", 1 << 30),
    "jobs.partitions_per_slot": (4, "4", 4),
    "jobs.split_bytes": ("1 GiB", "1 GiB", 1 << 30),
    "jobs.upload_lease_s": (5, "5e0", 5.0),
    "jobs.result_lease_s": (5.5, "5.5", 5.5),
    "jobs.peer_deadline_s": (2, "2", 2.0),
    "jobs.takeover_s": (20, "2e1", 20.0),
    "jobs.attempts_max": (2, "2", 2),
    "jobs.slow_task_factor": (1.5, "1.5", 1.5),
    "jobs.running_max": (8, "8", 8),
    "jobs.broadcast_bytes_max": (0, "0", 0),
    "log.level": ("debug", "debug", "debug"),
}


def test_table_of_values_has_every_key() -> None:
    assert set(SOMETHING_ELSE) == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_key_is_read_from_the_file(key: str, tmp_path: Path) -> None:
    written, _, meant = SOMETHING_ELSE[key]
    section, _, name = key.partition(".")
    file = tmp_path / "agent.yaml"
    file.write_text(yaml.safe_dump({section: {name: written}}))
    config = load_config(file=file, environment={})
    assert value_of(config, key) == meant != value_of(Config(), key)


@pytest.mark.parametrize("key", KEYS)
def test_key_is_read_from_the_environment(key: str) -> None:
    _, written, meant = SOMETHING_ELSE[key]
    assert value_of(load_config(environment={environment_name(key): written}), key) == meant


@pytest.mark.parametrize("key", KEYS)
def test_key_is_read_from_a_flag(key: str) -> None:
    written, _, meant = SOMETHING_ELSE[key]
    assert value_of(load_config(environment={}, flags={key: written}), key) == meant


def test_flag_wins_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("agent: {port: 1001, control_port: 1002, http_port: 1003}")
    environment = {"SABOT_AGENT_PORT": "2001", "SABOT_AGENT_CONTROL_PORT": "2002"}
    agent = load_config(file=file, environment=environment, flags={"agent.port": 3001, "agent.id": None}).agent
    assert (agent.port, agent.control_port, agent.http_port, agent.id) == (3001, 2002, 1003, None)


FAULTS: list[tuple[str, Any, list[str]]] = [
    ("agent.port", 70000, ["agent.port", "70000", "0 to 65535"]),
    ("agent.port", -1, ["agent.port", "0 to 65535"]),
    ("agent.port", "8816", ["agent.port", "whole number", "'8816'"]),
    ("agent.port", 1.5, ["agent.port", "whole number"]),
    ("agent.port", True, ["agent.port", "whole number", "True"]),
    ("agent.port", None, ["agent.port", "not empty"]),
    ("agent.insecure", "yes", ["agent.insecure", "true or false", "'yes'"]),
    ("agent.insecure", 1, ["agent.insecure", "true or false"]),
    ("agent.id", "a b", ["agent.id", "letter or digit", "'a b'"]),
    ("agent.id", "../x", ["agent.id", "'../x'"]),
    ("agent.host", "", ["agent.host", "text"]),
    ("agent.host", 5, ["agent.host", "text", "5"]),
    ("agent.join", "a:1", ["agent.join", "list of HOST:PORT"]),
    ("agent.join", ["a"], ["agent.join", "'a'", "port"]),
    ("agent.join", ["::1:5"], ["agent.join", "brackets"]),
    ("agent.drain_s", float("nan"), ["agent.drain_s", "seconds"]),
    ("agent.drain_s", float("inf"), ["agent.drain_s", "seconds"]),
    ("slots.count", 5000, ["slots.count", "0 to 1024"]),
    ("slots.autoscale", {"min": 3, "max": 2}, ["slots.autoscale", "A <= B"]),
    ("slots.autoscale", {"min": 1}, ["slots.autoscale", "{min: A, max: B}"]),
    ("slots.autoscale", {"min": 1, "max": 2000}, ["slots.autoscale", "1024"]),
    ("slots.autoscale", "2 to 8", ["slots.autoscale", "A-B"]),
    ("slots.morsel_bytes", "64 KB", ["slots.morsel_bytes", "64 KiB"]),
    ("slots.morsel_bytes", 10, ["slots.morsel_bytes", "1 KiB"]),
    ("slots.morsel_bytes", "0.3 B", ["slots.morsel_bytes", "bytes"]),
    ("log.level", "loud", ["log.level", "debug, info, warning, error", "'loud'"]),
    ("agent.prot", 1, ["agent.prot", "unknown key", "did you mean agent.port?"]),
    ("agnet.port", 1, ["agnet.port", "did you mean agent.port?"]),
    ("control_port", 1, ["control_port", "did you mean agent.control_port?"]),
    ("nothing_like_it", 1, ["nothing_like_it", "the keys are agent.id, "]),
]


@pytest.mark.parametrize(("key", "value", "said"), FAULTS)
def test_fault_in_a_file_names_key_value_and_what_is_wanted(
    key: str, value: Any, said: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "agent.yaml"
    section, dot, name = key.partition(".")
    file.write_text(yaml.safe_dump({section: {name: value}} if dot else {section: value}))
    (problem,) = problems_of(file=file)
    assert [word for word in [*said, str(file)] if word not in problem] == []


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SABOT_AGENT_PORT", "many", "whole number"),
        ("SABOT_AGENT_PORT", "", "whole number"),
        ("SABOT_AGENT_INSECURE", "perhaps", "true or false"),
        ("SABOT_AGENT_DRAIN_S", "nan", "seconds"),
        ("SABOT_AGENT_JOIN", "a:1,b", "'b'"),
        ("SABOT_AGENT_CONTROL_PROT", "1", "did you mean SABOT_AGENT_CONTROL_PORT?"),
    ],
)
def test_fault_in_the_environment_names_the_variable(variable: str, value: str, said: str) -> None:
    (problem,) = problems_of(environment={variable: value})
    assert variable in problem
    assert said in problem


def test_fault_in_a_flag_names_the_flag() -> None:
    assert "--control-port" in problems_of(flags={"agent.control_port": -1})[0]
    assert "--slots" in problems_of(flags={"slots.count": -1})[0]
    assert "--agent-id" in problems_of(flags={"agent.id": "-"})[0]


def test_other_variables_are_not_ours() -> None:
    assert load_config(environment={"SABOT_TAG": "1", "PATH": "/bin", "SABOTAGE_AGENT": "x"}) == Config()


def test_all_faults_of_all_sources_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("agent: {port: x, colour: red}\nlog: {level: loud}")
    problems = problems_of(
        file=file, environment={"SABOT_SLOTS_COUNT": "-1"}, flags={"agent.host": "0.0.0.0", "agent.http_port": 99999}
    )
    keys = [problem.partition(":")[0] for problem in problems]
    assert keys == [
        *("agent.port", "agent.colour", "log.level", "slots.count", "agent.http_port"),
        *("agent.host", "agent.advertise_host"),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("agent: [", "line 1"),
        ("agent:\n  port: 1\n  port: 2\n", "line 3: port is there twice"),
        ("- agent", "must hold sections"),
        ("agent: 5", "agent: must hold keys such as id, not 5"),
        ("agent: {[a]: 1}", "not YAML"),
        ("\0", "is not UTF-8 text"),
    ],
)
def test_file_of_a_wrong_form_is_a_fault_that_names_it(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(content)
    (problem,) = problems_of(file=file)
    assert said in problem
    assert str(file) in problem


def test_missing_file_is_a_fault_that_names_it(tmp_path: Path) -> None:
    (problem,) = problems_of(file=tmp_path / "none.yaml")
    assert "none.yaml" in problem
    assert "cannot be read" in problem


@pytest.mark.parametrize("content", ["", "# nothing", "agent:\nslots:\n", "agent.port: 8816"])
def test_file_may_leave_everything_out(content: str, tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(content)
    assert load_config(file=file, environment={}) == Config()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_insecure(host: str) -> None:
    assert load_config(environment={}, flags={"agent.host": host}).agent.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "node7"])
def test_host_that_others_reach_needs_insecure_and_says_why(host: str) -> None:
    problem = problems_of(flags={"agent.host": host, "agent.advertise_host": "node7"})[0]
    assert problem.startswith("agent.host: ")
    assert [word for word in ("Python code", "mutual TLS", "agent.insecure", "--insecure") if word not in problem] == []
    given = {"agent.host": host, "agent.advertise_host": "node7", "agent.insecure": True}
    assert load_config(environment={}, flags=given).agent.host == host


def test_wildcard_is_nothing_to_tell_others() -> None:
    assert "agent.advertise_host: must be set" in problems_of(flags={"agent.host": "::", "agent.insecure": True})[0]
    assert "means every interface" in problems_of(flags={"agent.advertise_host": "0.0.0.0"})[0]


def test_two_ports_are_not_the_same_unless_any_is_wanted() -> None:
    (problem,) = problems_of(flags={"agent.control_port": 9000, "agent.http_port": 9000})
    assert "agent.control_port: 9000 is also agent.http_port" in problem
    load_config(environment={}, flags={"agent.port": 0, "agent.control_port": 0, "agent.http_port": 0})


def test_configuration_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().agent.port = 1  # type: ignore[misc]


def test_default_state_dir_is_one_per_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_dir("a") == tmp_path / "sabot" / "a"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state_dir("b") == tmp_path / ".local/state/sabot/b"
