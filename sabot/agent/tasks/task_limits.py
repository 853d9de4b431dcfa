"""What bounds the tasks of an agent."""

from __future__ import annotations

from dataclasses import dataclass

from sabot.config import Config
from sabot.slots.morsel import MorselBytes

_PARTITION_PART = 8  # with the table that groups or joins it (see PARTITION_FACTOR) so much takes half of the memory
_SCATTER_PART = 16  # rows are gathered, copied in partition order, and wait for their owners
_BYTES_MIN = 1 << 20
_READ_BYTES_MAX = 64 << 20  # of files; more at a time is no faster


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """See configs/agent.yaml for slots.morsel_bytes and shuffle.scatter_bytes_max.

    `wait_s_max` ends waits that nothing else has ended: dead and frozen peers are found by pings long before. A
    partition with more than `partition_bytes_max` (0: none) is worked on part by part, and so much of an answer is kept
    before it is given to the store. About `read_bytes_max` of a file's rows are read at a time.
    """

    morsel_bytes: MorselBytes
    scatter_bytes_max: int
    worker_memory_bytes: int = 4 * 1024**3
    wait_s_max: float = 300.0
    partition_bytes_max: int = 0
    read_bytes_max: int = _READ_BYTES_MAX

    @property
    def grouped_bytes_max(self) -> int:
        """Of rows that are grouped at a time before they are sent, beside what is read; 0: any number."""
        return self.partition_bytes_max // 2

    @classmethod
    def of(cls, config: Config, *, memory_bytes_max: int) -> TaskLimits:
        """As the agent is configured; 0 is memory without a limit."""
        scatter_bytes_max, partition_bytes_max = config.shuffle.scatter_bytes_max, 0
        if memory_bytes_max:
            scatter_bytes_max = min(scatter_bytes_max, max(_BYTES_MIN, memory_bytes_max // _SCATTER_PART))
            partition_bytes_max = max(_BYTES_MIN, memory_bytes_max // _PARTITION_PART)
        return cls(
            morsel_bytes=config.slots.morsel_bytes,
            scatter_bytes_max=scatter_bytes_max,
            worker_memory_bytes=config.slots.worker_memory_bytes,
            partition_bytes_max=partition_bytes_max,
            read_bytes_max=min(_READ_BYTES_MAX, partition_bytes_max or _READ_BYTES_MAX),
        )
