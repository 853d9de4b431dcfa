"""Which side of a join is copied to every agent, so that the other one need not be shuffled. Pure."""

from __future__ import annotations

from sabot.dataflow.estimates import bytes_at_most
from sabot.dataflow.join_types import SIDES_TO_CUT
from sabot.dataflow.plan import JoinNode

TIMES_SMALLER: int = 32
"""Each task indexes the copy anew, at some 10 ms a MiB, where a shuffle costs 0.7 a MiB: with 2 tasks a slot a copy of
rows of 16 bytes pays from a 28th on (`benchmarks/hot_keys.py`)."""
_TINY_BYTES = 64 << 10  # costs no task a millisecond, and a stage less is worth more


def side_to_copy(node: JoinNode, bytes_max: int) -> tuple[int, int] | None:
    """The side (0 left, 1 right) and what is expected of it; None where both are to be shuffled.

    A side may be copied where the other one may be cut: no row of a copy is given for itself.
    """
    if bytes_max <= 0:
        return None
    known = (bytes_at_most(node.left), bytes_at_most(node.right))
    small = []
    for kept in SIDES_TO_CUT[node.step.join_type]:
        size, other = known[1 - kept], known[kept]
        if size is None or size > bytes_max:
            continue
        if size <= _TINY_BYTES or other is None or TIMES_SMALLER * size <= other:
            small.append((size, 1 - kept))
    if not small:
        return None
    size, side = min(small)
    return side, size
