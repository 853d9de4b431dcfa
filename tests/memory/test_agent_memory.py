"""The limit of whole agents: how it is divided, shown, and what a job meets that does not fit."""

from __future__ import annotations

import re
import urllib.request

import pyarrow as pa
import pytest

from sabot import AgentContext, LocalCluster
from sabot.config.machine import default_memory_bytes_max
from sabot.errors import LimitReached

MiB = 1 << 20


def accounts(http_address: str) -> dict[str, int]:
    """What an agent's page says of its memory."""
    with urllib.request.urlopen(f"http://{http_address}/metrics", timeout=10) as page:
        text = page.read().decode()
    found = re.findall(r'^sabot_memory_bytes\{account="(\w+)",agent_id="[^"]+"\} (\S+)$', text, re.MULTILINE)
    return {account: int(float(value)) for account, value in found}


def test_agents_of_a_local_cluster_divide_the_default_limit() -> None:
    with LocalCluster(agents=2) as cluster:
        limits = [accounts(agent.http_address)["bytes_max"] for agent in cluster.agents]
    assert limits == [default_memory_bytes_max(2)] * 2


def test_job_that_does_not_fit_fails_by_name_and_the_agent_goes_on() -> None:
    with LocalCluster(agents=1, memory_bytes_max=64 * MiB) as cluster:
        session = cluster.connect(progress=False)
        rows = session.from_table(pa.table({"k": pa.array([1] * 3_000), "v": pa.array(range(3_000))}))
        with pytest.raises(LimitReached, match=r"memory\.bytes_max"):
            rows.join(rows, "k", join_type="inner", right_suffix="_r").count_rows()
        assert rows.count_rows() == 3_000
        agent = accounts(cluster.agents[0].http_address)
    assert agent["bytes_max"] == 64 * MiB
    assert 0 < agent["peak"] <= 64 * MiB


def test_context_in_a_users_process_leaves_his_pool_alone() -> None:
    before = pa.default_memory_pool().backend_name
    with AgentContext.get_instance().initialize(agent_id="a", num_slots=1, port=0, memory_bytes_max=MiB) as context:
        assert pa.default_memory_pool().backend_name == before
        assert len(pa.allocate_buffer(2 * MiB)) == 2 * MiB
        assert context.get_metrics()["memory_bytes"]["bytes_max"] == MiB
    assert pa.default_memory_pool().backend_name == before
