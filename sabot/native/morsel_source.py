"""Where a morsel came from, as both the native core and the slots say it."""

from enum import Enum


class MorselSource(Enum):
    """LOCAL: made on this agent, its own chunks included; NETWORK: came from another agent."""

    LOCAL = "local"
    NETWORK = "network"
