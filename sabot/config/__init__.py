"""The agent's configuration: every key with its type, range and default, from flags, environment and file.

This module is the only reader of the environment in Sabot. `load_config` reports all faults of all sources at once,
each with its dotted key and where it came from, and promises that what it returns can be used as it is. Reasons for
the defaults stand in configs/agent.yaml.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sabot.config.keys import (
    Key,
    Span,
    addresses,
    boolean,
    byte_size,
    byte_size_or_auto,
    choice,
    factor,
    integer,
    name,
    path,
    paths,
    seconds,
    span,
    text,
)
from sabot.config.yaml_file import read_yaml
from sabot.errors import ConfigError
from sabot.wire.addresses import is_loopback, is_wildcard

MiB = 1024 * 1024
ENVIRONMENT_PREFIX = "SABOT_"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSection:
    """Who the agent is, where it listens and how it ends."""

    id: str | None = name(None)
    host: str = text("127.0.0.1")
    port: int = integer(8816, 0, 65535)
    control_port: int = integer(8815, 0, 65535)
    http_port: int = integer(8817, 0, 65535)
    advertise_host: str | None = text(None)
    insecure: bool = boolean(False)
    state_dir: str | None = path(None)
    join: tuple[str, ...] = addresses(())
    drain_s: float = seconds(30.0, 0.0, 86_400.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsSection:
    """The slots of this agent."""

    count: int = integer(0, 0, 1024)
    autoscale: Span | None = span(1, 1024)
    morsel_bytes: int | Literal["auto"] = byte_size_or_auto("auto", 1024, 1024 * MiB)
    timeline_morsels: int = integer(4096, 0, 1024 * 1024)
    worker_memory_bytes: int = byte_size(4096 * MiB, 64 * MiB, 1024 * 1024 * MiB)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySection:
    """What the agent may hold."""

    bytes_max: int | Literal["auto"] = byte_size_or_auto("auto", 64 * MiB, 1024 * 1024 * 1024 * MiB)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleSection:
    """How rows cross the network."""

    open_wait_s: float = seconds(10.0, 0.1, 3_600.0)
    stream_timeout_s: float = seconds(30.0, 1.0, 86_400.0)
    resume_s: float = seconds(2.0, 0.0, 3_600.0)
    streams_per_peer: int = integer(2, 1, 16)
    compression: Literal["none", "lz4", "zstd"] = choice("none", "none", "lz4", "zstd")
    stream_idle_s: float = seconds(120.0, 1.0, 86_400.0)
    streams_max: int = integer(1024, 8, 65_536)
    chunk_bytes_max: int = byte_size(4 * MiB, 64 * 1024, 64 * MiB)
    scatter_bytes_max: int = byte_size(32 * MiB, 64 * 1024, 1024 * MiB)
    hot_partition_factor: float = factor(2.0, 1.0, 1_000_000.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpillSection:
    """Where rows go that do not fit into memory."""

    dirs: tuple[str, ...] = paths(())
    bytes_max: int = byte_size(0, 0, 1024**6)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsSection:
    """How jobs are cut and how long their leftovers are kept."""

    partitions_per_slot: int = integer(2, 1, 256)
    split_bytes: int = byte_size(64 * MiB, 1024, 64 * 1024 * MiB)
    upload_lease_s: float = seconds(60.0, 1.0, 86_400.0)
    result_lease_s: float = seconds(600.0, 1.0, 604_800.0)
    peer_deadline_s: float = seconds(10.0, 0.1, 3_600.0)
    takeover_s: float = seconds(15.0, 0.1, 3_600.0)
    attempts_max: int = integer(4, 1, 100)
    slow_task_factor: float = factor(3.0, 1.0, 1_000_000.0)
    running_max: int = integer(32, 1, 4096)
    broadcast_bytes_max: int = byte_size(10 * MiB, 0, 1024 * MiB)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSection:
    """What the agent writes to its standard error."""

    level: str = choice("info", "debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration; `Config()` is the default one."""

    agent: AgentSection = field(default_factory=AgentSection)
    slots: SlotsSection = field(default_factory=SlotsSection)
    memory: MemorySection = field(default_factory=MemorySection)
    shuffle: ShuffleSection = field(default_factory=ShuffleSection)
    spill: SpillSection = field(default_factory=SpillSection)
    jobs: JobsSection = field(default_factory=JobsSection)
    log: LogSection = field(default_factory=LogSection)


SECTIONS: dict[str, type[Any]] = {
    "agent": AgentSection,
    "slots": SlotsSection,
    "memory": MemorySection,
    "shuffle": ShuffleSection,
    "spill": SpillSection,
    "jobs": JobsSection,
    "log": LogSection,
}
KEYS: dict[str, Key] = {
    f"{section}.{item.name}": item.metadata["key"]
    for section, kind in SECTIONS.items()
    for item in dataclasses.fields(kind)
}
FLAGS = {"agent.id": "agent-id", "slots.count": "slots", "memory.bytes_max": "memory"}
"""Flags that are not named as their key without `agent.`."""


class Given(NamedTuple):
    """A value as it was written: for which key, where, and whether it is a string that stands for something else."""

    key: str
    value: Any
    origin: str
    is_text: bool


def load_config(
    *,
    file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """A flag wins over SABOT_*, that over the file, that over the default; ConfigError lists all faults at once.

    `flags` has dotted keys; a flag that is None was not given. `environment` is the process's unless told otherwise.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for given in (
        *_from_file(file, problems),
        *_from_environment(os.environ if environment is None else environment, problems),
        *_from_flags(flags or {}),
    ):
        key = KEYS.get(given.key)
        if key is None:
            problems.append(f"{given.key}: unknown key ({given.origin}){_nearest(given.key, list(KEYS))}")
            continue
        value, problem = key.read(given.value, is_text=given.is_text)
        if problem is None:
            values[given.key], origins[given.key] = value, given.origin
        else:
            problems.append(f"{given.key}: {problem} ({given.origin})")
    config = _build(values)
    problems += _problems_between_keys(config, origins)
    if problems:
        count = "a fault" if len(problems) == 1 else f"{len(problems)} faults"
        raise ConfigError(f"the configuration has {count}: {'; '.join(problems)}", problems=problems)
    return config


def default_state_dir(agent_id: str) -> Path:
    """Where an agent keeps its state unless told otherwise: sabot/AGENT_ID under XDG_STATE_HOME or ~/.local/state."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "sabot" / agent_id


def environment_name(key: str) -> str:
    """agent.control_port -> SABOT_AGENT_CONTROL_PORT."""
    return ENVIRONMENT_PREFIX + key.replace(".", "_").upper()


def _build(values: Mapping[str, Any]) -> Config:
    sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for key, value in values.items():
        section, _, key_in_section = key.partition(".")
        sections[section][key_in_section] = value
    return Config(**{section: kind(**sections[section]) for section, kind in SECTIONS.items()})


def _from_file(file: str | os.PathLike[str] | None, problems: list[str]) -> Iterator[Given]:
    if file is None:
        return
    tree, faults = read_yaml(Path(file))
    problems += faults
    for section, content in tree.items():
        if content is None:
            continue
        if isinstance(content, Mapping):
            for key, value in content.items():
                yield Given(f"{section}.{key}", value, str(file), is_text=False)
        elif section in SECTIONS:
            problems.append(f"{section}: must hold keys such as {_example(section)}, not {content!r} ({file})")
        else:
            yield Given(str(section), content, str(file), is_text=False)


def _from_environment(environment: Mapping[str, str], problems: list[str]) -> Iterator[Given]:
    keys = {environment_name(key): key for key in KEYS}
    for variable, value in sorted(environment.items()):
        if variable in keys:
            yield Given(keys[variable], value, f"environment variable {variable}", is_text=True)
        elif variable.startswith(tuple(environment_name(section) + "_" for section in SECTIONS)):
            problems.append(f"{variable}: unknown environment variable{_nearest(variable, list(keys))}")


def _from_flags(flags: Mapping[str, Any]) -> Iterator[Given]:
    for key, value in flags.items():
        if value is not None:
            flag = key.removeprefix("agent.").replace("_", "-").replace(".", "-")
            yield Given(key, value, f"flag --{FLAGS.get(key, flag)}", is_text=False)


def _problems_between_keys(config: Config, origins: Mapping[str, str]) -> Iterator[str]:
    agent = config.agent
    if not is_loopback(agent.host) and not agent.insecure:
        yield (
            f"agent.host: {agent.host} is not a loopback address, and jobs carry Python code: whoever reaches the "
            "agent's ports can run code in it, and there is no mutual TLS yet. Bind 127.0.0.1, or, in a network that "
            f"you trust as a whole, set agent.insecure (flag --insecure) ({origins['agent.host']})"
        )
    if is_wildcard(agent.host) and agent.advertise_host is None:
        yield (
            f"agent.advertise_host: must be set when agent.host is {agent.host}, which is no address for others; give "
            f"the name or address by which they reach this node ({origins['agent.host']})"
        )
    if agent.advertise_host is not None and is_wildcard(agent.advertise_host):
        yield (
            f"agent.advertise_host: {agent.advertise_host} means every interface; give the name or address by which "
            f"others reach this node ({origins['agent.advertise_host']})"
        )
    ports = {key: getattr(agent, key) for key in ("control_port", "port", "http_port")}
    for first, second in (("control_port", "port"), ("control_port", "http_port"), ("port", "http_port")):
        if ports[first] == ports[second] != 0:
            yield f"agent.{first}: {ports[first]} is also agent.{second}; give each its own port, or 0 for any free one"


def _nearest(wrong: str, known: list[str]) -> str:
    found = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    if not found and "." in wrong:
        same_name = [key for key in known if key.endswith("." + wrong.rpartition(".")[2])]
        found = same_name[:1]
    return f"; did you mean {found[0]}?" if found else f"; the keys are {', '.join(known)}"


def _example(section: str) -> str:
    return dataclasses.fields(SECTIONS[section])[0].name
