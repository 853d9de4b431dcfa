"""What crosses the control port: addresses, versions, members, failures, and generated code that fits to its source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

from sabot import errors
from sabot.errors import PeerRefused, UsageError
from sabot.wire import agent_pb2
from sabot.wire.addresses import Address, format_address, is_loopback, parse_address
from sabot.wire.convert import from_agent, to_agent
from sabot.wire.failure import from_failure
from sabot.wire.member import Member
from sabot.wire.rpc_errors import FAILURE_METADATA_BYTES_MAX, status_of
from sabot.wire.versions import PROTOCOL, check_versions, my_versions

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:8815", "127.0.0.1", 8815), ("node-7.x_y:1", "node-7.x_y", 1), ("[::1]:65535", "::1", 65535)],
)
def test_address_is_host_and_port(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host, port)
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the port is missing"),
        ("node7", "the port is missing"),
        ("node7:", "the port is missing"),
        (":8815", "the host is not a name"),
        ("node7:http", "not a number"),
        ("node7:-1", "not a number"),
        ("node7:65536", "1 to 65535"),
        ("node7:0", "1 to 65535"),
        ("::1:8815", "in brackets"),
        ("[::1]", "the port is missing"),
        ("[::1:8815", "the port is missing"),
        ("[node7]:8815", "only an IPv6 address"),
        ("http://node7:8815", "the host is not a name"),
        ("node 7:8815", "the host is not a name"),
        ("node7:8815\n", "not a number"),
    ],
)
def test_what_is_no_address_is_refused_with_the_form_wanted(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match="write HOST:PORT") as raised:
        parse_address(text, what="agent")
    assert reason in raised.value.message
    assert repr(text) in raised.value.message


def test_port_0_is_an_address_only_where_any_port_will_do() -> None:
    assert parse_address("127.0.0.1:0", zero_port=True).port == 0


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_ip_address_survives_writing_and_reading(host: object, port: int) -> None:
    assert parse_address(format_address(str(host), port)) == Address(str(host), port)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("node7", False)],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_equal_versions_fit() -> None:
    check_versions(my_versions())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sabot": "9.9.9"}, "sabot {mine.sabot} here, 9.9.9 there"),
        ({"pyarrow_major": 1}, "pyarrow {mine.pyarrow_major} here, 1 there"),
        ({"python": "2.7"}, "Python {mine.python} here, 2.7 there"),
        ({"protocol": 99}, f"protocol {PROTOCOL} here, 99 there"),
    ],
)
def test_each_version_that_differs_is_refused_and_both_are_named(change: dict[str, object], said: str) -> None:
    theirs = my_versions()
    for name, value in change.items():
        setattr(theirs, name, value)
    with pytest.raises(PeerRefused) as raised:
        check_versions(theirs, peer="agent b")
    assert said.format(mine=my_versions()) in raised.value.message
    assert "agent b" in raised.value.message


def test_peer_that_tells_no_versions_is_refused() -> None:
    with pytest.raises(PeerRefused, match="none there"):
        check_versions(agent_pb2.Versions())


MEMBER = Member(
    agent_id="a",
    incarnation=2**64 - 1,
    control_address="[::1]:1",
    flight_address="h:2",
    http_address="h:3",
    slots=4,
    draining=True,
)


def test_member_survives_the_wire() -> None:
    sent = to_agent(MEMBER).SerializeToString()
    assert from_agent(agent_pb2.Agent.FromString(sent)) == MEMBER


@pytest.mark.parametrize("missing", ["agent_id", "incarnation", "control_address", "flight_address", "http_address"])
def test_member_without_identity_or_address_is_refused(missing: str) -> None:
    agent = to_agent(MEMBER)
    agent.ClearField(missing)  # type: ignore[arg-type]
    with pytest.raises((PeerRefused, UsageError)):
        from_agent(agent)


OURS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SabotError)]


@pytest.mark.parametrize("kind", OURS)
def test_every_error_of_ours_keeps_its_type_message_and_facts_in_a_status(kind: type[errors.SabotError]) -> None:
    code, details, metadata = status_of(kind("it broke; mend it", address="h:1"))
    assert code.name not in ("UNKNOWN", "OK")
    assert details == "it broke; mend it"
    restored = from_failure(agent_pb2.Failure.FromString(dict(metadata)["sabot-failure-bin"]))
    assert (type(restored), str(restored)) == (kind, "it broke; mend it")
    assert isinstance(restored, errors.SabotError)
    assert restored.facts == {"address": "h:1"}


def test_large_failure_fits_into_the_metadata() -> None:
    _, details, metadata = status_of(UsageError("x" * 10_000_000))
    assert sum(len(value) for _, value in metadata) <= FAILURE_METADATA_BYTES_MAX
    assert len(details) < 10_000


def test_generated_code_is_that_of_the_proto_file(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed (pip install 'sabot[test]')")
    made = tmp_path / "descriptors"
    command = ("-m", "grpc_tools.protoc", "-I", ".", f"--descriptor_set_out={made}", "sabot/wire/agent.proto")
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    (described,) = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    generated = descriptor_pb2.FileDescriptorProto()
    agent_pb2.DESCRIPTOR.CopyToProto(generated)
    for either in (described, generated):
        for message in either.message_type:
            for field in message.field:
                field.ClearField("json_name")  # only some versions of protoc write what follows from the name
    assert generated == described
