"""One call to an agent's control port; what goes wrong is one of sabot.errors, with the address."""

from __future__ import annotations

from typing import Any

import grpc

from sabot.wire import agent_pb2_grpc
from sabot.wire.addresses import control_channel_options
from sabot.wire.rpc_errors import error_of


def call_agent(address: str, method: str, request: Any, *, timeout_s: float) -> Any:
    """The reply to `method` of AgentControl, or PeerLost after `timeout_s`, or the agent's own error."""
    with grpc.insecure_channel(address, options=control_channel_options()) as channel:
        stub = agent_pb2_grpc.AgentControlStub(channel)
        try:
            return getattr(stub, method)(request, timeout=timeout_s)
        except grpc.RpcError as error:
            failure = error_of(error, address=address, deadline_s=timeout_s)
    raise failure
