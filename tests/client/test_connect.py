"""Connecting says at once what is wrong with the other end."""

from __future__ import annotations

import socket

import pytest

from sabot.client.connect import connect
from sabot.errors import PeerLost, PeerRefused, UsageError
from tests.client.plain_agent import PlainAgent
from tests.client.plain_server import PlainServer


@pytest.mark.parametrize("address", ["", "127.0.0.1", "localhost:http", "127.0.0.1:0", "127.0.0.1:70000", ":8815"])
def test_what_is_no_address_is_a_usage_error(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        connect(address)


def test_an_address_without_an_agent_is_named_with_advice(dead_address: str) -> None:
    with pytest.raises(PeerLost, match=f"{dead_address} cannot be reached .*sabot-agent start") as caught:
        connect(dead_address)
    assert caught.value.facts == {"address": dead_address, "deadline_s": 10.0}


def test_an_agent_that_never_answers_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(PeerLost, match=rf"{address} .*0\.2 s"):
            connect(address, timeout_s=0.2)


def test_the_flight_port_of_an_agent_is_told_from_its_control_port(server: PlainServer) -> None:
    with pytest.raises(PeerRefused, match="not its Flight or HTTP port"):
        connect(server.address)


def test_an_agent_of_another_version_is_refused_by_the_client(plain_agent: PlainAgent) -> None:
    plain_agent.versions.pyarrow_major += 1
    with pytest.raises(PeerRefused, match="pyarrow"):
        connect(plain_agent.agent.control_address)


def test_a_refusal_by_the_agent_arrives_as_itself(plain_agent: PlainAgent) -> None:
    plain_agent.refusal = PeerRefused("your Python is too old", differences=["Python"])
    with pytest.raises(PeerRefused, match=r"^your Python is too old$") as caught:
        connect(plain_agent.agent.control_address)
    assert caught.value.facts == {"differences": ["Python"]}


def test_a_session_knows_its_agent_and_the_members(plain_agent: PlainAgent) -> None:
    with connect(plain_agent.agent.control_address) as session:
        assert session.agent.agent_id == "plain"
        assert session.agents() == [session.agent]


def test_a_closed_session_refuses_work(plain_agent: PlainAgent) -> None:
    session = connect(plain_agent.agent.control_address)
    session.close()
    session.close()
    with pytest.raises(UsageError, match=r"sabot\.connect"):
        session.agents()
