"""Addresses as Sabot writes them, HOST:PORT with IPv6 hosts in brackets, and the options of its control channels.

What cannot be an address is a UsageError that shows the form wanted. Nothing here resolves names or opens sockets.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from sabot.errors import UsageError

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""The largest control message: plans carry Python functions with what they close over, rows never travel here."""

METADATA_BYTES_MAX = 512 * 1024
"""The largest trailing metadata; a failure travels there, and gRPC's own limit of 8 KiB would cut tracebacks off."""

_HOST = re.compile(r"(?!-)[A-Za-z0-9._-]{1,253}(?<!-)")
_PORT = re.compile(r"[0-9]{1,5}")


class Address(NamedTuple):
    """A host, without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_address(self.host, self.port)


def parse_address(text: str, *, what: str = "address", zero_port: bool = False) -> Address:
    """Splits HOST:PORT; `what` names the thing in the UsageError, port 0 passes only with `zero_port`."""
    advice = f"{what} {text!r}: write HOST:PORT, such as 127.0.0.1:8815, node7:8815 or [::1]:8815"
    bracketed = text.startswith("[")
    if bracketed:
        host, bracket, port_text = text[1:].partition("]")
        separated = bool(bracket) and port_text.startswith(":")
        port_text = port_text[1:]
    else:
        host, colon, port_text = text.rpartition(":")
        separated = bool(colon)
    if not separated or not _PORT.fullmatch(port_text):
        raise UsageError(f"{advice} (the port is missing or not a number)", address=text)
    if bracketed and not is_ipv6(host):
        raise UsageError(f"{advice} (only an IPv6 address goes in brackets)", address=text)
    if not bracketed and not _HOST.fullmatch(host):
        reason = "an IPv6 address goes in brackets" if is_ipv6(host) else "the host is not a name or an address"
        raise UsageError(f"{advice} ({reason})", address=text)
    port = int(port_text)
    if port > 65535 or (port == 0 and not zero_port):
        raise UsageError(f"{advice} (the port must be {0 if zero_port else 1} to 65535)", address=text)
    return Address(host, port)


def format_address(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ipv6(host: str) -> bool:
    """Whether `host` is an IPv6 address, written without brackets."""
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`: a loopback address, or the name localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Whether `host` means every interface, which others cannot be told as an address."""
    return host in {"0.0.0.0", "::"}


def control_channel_options() -> list[tuple[str, int]]:
    """What every control channel is opened with: no HTTP proxy between agents, and our own limits."""
    return [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
    ]


def control_server_options() -> list[tuple[str, int]]:
    """What the control server is opened with; without so_reuseport=0 two agents would share a port silently."""
    return [("grpc.so_reuseport", 0), *control_channel_options()]
