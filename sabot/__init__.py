"""Sabot lends a cluster's cores as task slots and its network as an audited Arrow Flight shuffle.

`sabot.connect(address)` opens a session with a cluster; `sabot.LocalCluster()` starts one on this machine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sabot import native as _native

if TYPE_CHECKING:
    from sabot.agent.context import AgentContext
    from sabot.client.connect import connect
    from sabot.client.local_cluster import LocalCluster
    from sabot.dataflow.dataset import Dataset
    from sabot.shuffle import ShuffleClient, ShuffleServer, ShuffleTransport
    from sabot.slots import Morsel, MorselExecutor, MorselOperator, MorselResult, MorselSource, TaskSlotManager

__all__ = [
    "AgentContext",
    "Dataset",
    "LocalCluster",
    "Morsel",
    "MorselExecutor",
    "MorselOperator",
    "MorselResult",
    "MorselSource",
    "ShuffleClient",
    "ShuffleServer",
    "ShuffleTransport",
    "TaskSlotManager",
    "connect",
]

assert _native.CORE_FITS  # importing it refuses at once where the core is missing or pyarrow is another

# Each name is imported at its first use, so that a script that only connects does not pay for an agent.
_HOME_OF = {
    "AgentContext": "sabot.agent.context",
    "Dataset": "sabot.dataflow.dataset",
    "LocalCluster": "sabot.client.local_cluster",
    "connect": "sabot.client.connect",
    **dict.fromkeys(("ShuffleClient", "ShuffleServer", "ShuffleTransport"), "sabot.shuffle"),
    **dict.fromkeys(
        ("Morsel", "MorselExecutor", "MorselOperator", "MorselResult", "MorselSource", "TaskSlotManager"), "sabot.slots"
    ),
}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'sabot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
