"""Says before a port is opened whether it can be, because what gRPC and Flight say of it names no cause."""

from __future__ import annotations

import errno
import socket

from sabot.errors import UsageError
from sabot.wire.addresses import format_address


def check_port(host: str, port: int, *, what: str, key: str) -> None:
    """UsageError naming HOST:PORT and the key to change when `what` could not listen there."""
    address = format_address(host, port)
    flag = "--" + key.removeprefix("agent.").replace("_", "-")
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise UsageError(
            f"{what} cannot listen on {address}: the host is unknown ({error.strerror}); correct it (flag --host, key "
            "agent.host)",
            address=address,
        ) from None
    family, kind, protocol, _, socket_address = resolved[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(socket_address)
        except OSError as error:
            raise UsageError(_explain(error, what, address, key, flag), address=address, key=key) from None


def _explain(error: OSError, what: str, address: str, key: str, flag: str) -> str:
    choose = f"choose another one (flag {flag}, key {key}; 0: any free one)"
    if error.errno == errno.EADDRINUSE:
        return f"{what} cannot listen on {address}: the port is in use; {choose}"
    if error.errno == errno.EACCES:
        return f"{what} cannot listen on {address}: not permitted, ports below 1024 need a privilege; {choose}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{what} cannot listen on {address}: no interface here has it; correct it (flag --host, key agent.host)"
    return f"{what} cannot listen on {address}: {error.strerror}; {choose}"
