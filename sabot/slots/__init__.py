"""Task slots: morsels through functions and expressions, on native threads.

Python says what is to be done; the slots do it, without the GIL wherever no Python function is called.
"""

from sabot.slots.executor import MorselExecutor
from sabot.slots.manager import TaskSlotManager
from sabot.slots.morsel import Morsel, MorselResult, MorselSource
from sabot.slots.morsel_operator import MorselOperator
from sabot.slots.operators import Pipeline

__all__ = [
    "Morsel",
    "MorselExecutor",
    "MorselOperator",
    "MorselResult",
    "MorselSource",
    "Pipeline",
    "TaskSlotManager",
]
