"""AgentContext, the process's one agent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.agent.context import AgentContext
from sabot.errors import UsageError
from sabot.slots import Morsel, MorselSource


@pytest.fixture
def context() -> Iterator[AgentContext]:
    """The one context, not initialised; shut down afterwards."""
    one = AgentContext.get_instance()
    assert not one.initialized
    yield one
    one.shutdown()


@pytest.fixture
def agent(context: AgentContext) -> AgentContext:
    """The one context, initialised on a free port with two slots."""
    return context.initialize(agent_id="a", num_slots=2, port=0)


def test_there_is_one_context(context: AgentContext) -> None:
    assert AgentContext.get_instance() is context
    with pytest.raises(UsageError, match="get_instance"):
        AgentContext()


@pytest.mark.parametrize(
    "use",
    [
        lambda context: context.agent_id,
        lambda context: context.incarnation,
        lambda context: context.insecure,
        lambda context: context.task_slot_manager,
        lambda context: context.shuffle_transport,
        lambda context: context.scale_slots(2),
        lambda context: context.get_slot_stats(),
        lambda context: context.get_metrics(),
    ],
)
def test_nothing_works_before_initialize(context: AgentContext, use: Any) -> None:
    with pytest.raises(UsageError, match=r"call initialize\(agent_id=...\) first"):
        use(context)


def test_second_initialize_is_refused_and_changes_nothing(agent: AgentContext) -> None:
    before = (agent.agent_id, agent.incarnation, agent.shuffle_transport)
    with pytest.raises(UsageError, match="initialised already, as agent a"):
        agent.initialize(agent_id="b", port=0)
    assert (agent.agent_id, agent.incarnation, agent.shuffle_transport) == before


def test_initialised_again_after_shutdown_it_is_another_incarnation(agent: AgentContext) -> None:
    first = agent.incarnation
    address = agent.shuffle_transport.address
    agent.shutdown()
    with pytest.raises(UsageError):
        _ = agent.agent_id
    port = int(address.rpartition(":")[2])
    agent.initialize(agent_id="b", num_slots=1, port=port)
    assert (agent.agent_id, agent.shuffle_transport.address) == ("b", address)
    assert agent.incarnation != first


def test_shutdown_twice_is_shutdown_once(agent: AgentContext) -> None:
    agent.shutdown()
    agent.shutdown()


def test_block_shuts_down_at_its_end(context: AgentContext) -> None:
    with context.initialize(agent_id="a", num_slots=1, port=0) as agent:
        assert agent.initialized
    assert not context.initialized


def test_slots_are_as_many_as_asked_for(agent: AgentContext) -> None:
    assert agent.task_slot_manager.get_num_slots() == 2
    agent.scale_slots(5)
    assert agent.task_slot_manager.get_num_slots() == 5
    agent.scale_slots(1)
    assert [slot["busy"] for slot in agent.get_slot_stats()] == [False]


@pytest.mark.parametrize("number", [0, -1, 1025, 1.5, "2", True])
def test_number_of_slots_that_cannot_be_is_refused(agent: AgentContext, number: Any) -> None:
    with pytest.raises(UsageError, match=f"num_slots must be a whole number from 1 to 1024, not {number!r}"):
        agent.scale_slots(number)
    assert agent.task_slot_manager.get_num_slots() == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"agent_id": ""}, "agent_id"),
        ({"num_slots": -1}, "num_slots must be a whole number from 0 to 1024"),
        ({"port": 65536}, "port must be a whole number from 0 to 65535"),
        ({"host": "0.0.0.0", "advertise_host": "node7"}, "insecure=True"),
        ({"host": "node7"}, "mutual TLS"),
        ({"host": "0.0.0.0", "insecure": True}, "advertise_host="),
    ],
)
def test_arguments_that_cannot_be_are_refused(context: AgentContext, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        context.initialize(**{"agent_id": "a", "port": 0, **arguments})
    assert not context.initialized


def test_port_in_use_leaves_no_agent_behind(context: AgentContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=str(port)):
            context.initialize(agent_id="a", num_slots=1, port=port)
    assert not context.initialized
    context.initialize(agent_id="a", num_slots=1, port=port)


def test_advertised_host_is_in_the_address(context: AgentContext) -> None:
    agent = context.initialize(
        agent_id="a", num_slots=1, host="0.0.0.0", port=0, advertise_host="localhost", insecure=True
    )
    assert agent.insecure
    assert agent.shuffle_transport.address == f"localhost:{agent.shuffle_transport.port}"


def test_transport_answers_under_the_incarnation_of_the_context(agent: AgentContext) -> None:
    transport = agent.shuffle_transport
    assert transport.ping(transport.address).incarnation == agent.incarnation


def test_metrics_count_what_the_slots_did(agent: AgentContext) -> None:
    batch = pa.record_batch({"x": list(range(10))})
    morsels = [
        Morsel(batch=batch, start_row=0, num_rows=5, source=MorselSource.LOCAL),
        Morsel(batch=batch, start_row=5, num_rows=5, source=MorselSource.NETWORK),
    ]
    agent.task_slot_manager.execute_morsels(morsels, pc.field("x") * 2)
    metrics = agent.get_metrics()
    assert {
        name: metrics[name]
        for name in ("agent_id", "incarnation", "num_slots", "queue_depth", "local_morsels", "network_morsels")
    } == {
        "agent_id": "a",
        "incarnation": agent.incarnation,
        "num_slots": 2,
        "queue_depth": 0,
        "local_morsels": 1,
        "network_morsels": 1,
    }
    assert metrics["resident_bytes"] > 0
    assert metrics["shuffle_stored_bytes"] == 0


def test_shuffle_of_one_agent_with_itself_goes_through_its_slots(agent: AgentContext) -> None:
    transport = agent.shuffle_transport
    transport.start_shuffle("s", 2, [transport.address])
    for partition in (0, 1):
        transport.send_partition("s", partition, pa.record_batch({"x": [partition] * 3}))
    transport.finish_shuffle("s")
    assert [transport.receive_partition("s", p).read_all()["x"].to_pylist() for p in (0, 1)] == [[0] * 3, [1] * 3]
    transport.end_shuffle("s")


def test_scaling_from_many_threads_ends_with_what_one_of_them_asked_for(agent: AgentContext) -> None:
    numbers = [1, 2, 3, 4, 5, 6]
    threads = [threading.Thread(target=agent.scale_slots, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert agent.task_slot_manager.get_num_slots() in numbers
