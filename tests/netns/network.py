"""A network of its own for a test: nodes in network namespaces with addresses of their own, joined by a bridge.

Nothing outside the namespaces is changed: the bridge has one, too, from which clients are run. A node can be cut off
from all others without a word to anyone, as a pulled cable does.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence

_TOOLS = ("ip", "iptables")


def why_not() -> str | None:
    """Why no network can be made here, if so."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: apt-get install iproute2 iptables)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"sabot-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces are not permitted here: {made.stderr.strip()}"
    filtered = subprocess.run([*_inside(name), "iptables", "-L", "-n"], capture_output=True, text=True, check=False)
    _run("ip", "netns", "del", name)
    return f"iptables does not work here: {filtered.stderr.strip()}" if filtered.returncode else None


class Network:
    """`nodes` nodes, numbered from 0; `close` removes every trace of them."""

    def __init__(self, nodes: int) -> None:
        self._prefix = f"sabot-{secrets.token_hex(3)}"
        self._names: list[str] = []
        try:
            self._make(nodes)
        except BaseException:
            self.close()
            raise

    def _make(self, nodes: int) -> None:
        hub = self._namespace("hub")
        _run(*_inside(hub), "ip", "link", "add", "bridge", "type", "bridge")
        _run(*_inside(hub), "ip", "addr", "add", "10.77.0.254/24", "dev", "bridge")
        _run(*_inside(hub), "ip", "link", "set", "bridge", "up")
        for node in range(nodes):
            name = self._namespace(str(node))
            _run(
                "ip", "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", f"port{node}", "netns", hub
            )
            _run(*_inside(hub), "ip", "link", "set", f"port{node}", "master", "bridge", "up")
            _run(*_inside(name), "ip", "addr", "add", f"{self.host(node)}/24", "dev", "eth0")
            _run(*_inside(name), "ip", "link", "set", "eth0", "up")

    def _namespace(self, suffix: str) -> str:
        name = f"{self._prefix}-{suffix}"
        _run("ip", "netns", "add", name)
        self._names.append(name)
        _run(*_inside(name), "ip", "link", "set", "lo", "up")
        return name

    def host(self, node: int) -> str:
        return f"10.77.0.{node + 1}"

    def inside(self, node: int) -> Sequence[str]:
        """What runs a command on a node."""
        return _inside(f"{self._prefix}-{node}")

    @property
    def at_the_hub(self) -> Sequence[str]:
        """What runs a command where all nodes can be reached."""
        return _inside(f"{self._prefix}-hub")

    def cut_off(self, node: int) -> None:
        """From now on all that the node sends, and all that is sent to it, is dropped without an answer."""
        for chain, device in (("INPUT", "-i"), ("OUTPUT", "-o")):
            _run(*self.inside(node), "iptables", "-I", chain, "!", device, "lo", "-j", "DROP")

    def rejoin(self, node: int) -> None:
        """The node is back."""
        _run(*self.inside(node), "iptables", "-F")

    def close(self) -> None:
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        self._names.clear()


def _inside(name: str) -> list[str]:
    return ["ip", "netns", "exec", name]


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
