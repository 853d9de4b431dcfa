"""What a stage knows of one of its tasks. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sabot.agent.running import Partitions
from sabot.wire.agent_pb2 import Failure, RunTaskReply

_NONE: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class TaskState:
    """`lacks` are partitions whose owner no longer holds what the task sent."""

    attempts: int = 0  # started so far, by all coordinators
    commits: tuple[tuple[int, Partitions], ...] = ()
    lacks: frozenset[int] = _NONE
    done_by: int | None = None  # the agent of the latest attempt that succeeded
    reply: RunTaskReply | None = None
    integrity_failures: int = 0
    held: bool = False
    doubled: bool = False  # its attempt under way has been given a second one
    failures: tuple[Failure, ...] = ()

    def packed(self) -> tuple[Any, ...]:
        """What another coordinator goes on from: to that one nothing is under way, held or failed."""
        reply = None if self.reply is None else self.reply.SerializeToString()
        return self.attempts, self.commits, self.lacks, self.done_by, reply, self.integrity_failures

    @classmethod
    def unpacked(cls, packed: tuple[Any, ...]) -> TaskState:
        attempts, commits, lacks, done_by, reply, integrity_failures = packed
        return cls(
            attempts=attempts,
            commits=commits,
            lacks=lacks,
            done_by=done_by,
            reply=None if reply is None else RunTaskReply.FromString(reply),
            integrity_failures=integrity_failures,
        )
