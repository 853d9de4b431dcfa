"""What a stage knows of one of its tasks: its attempts, which of them are visible, and where their rows lie. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sabot.agent.coordination.running import Partitions
from sabot.dataflow.enough_rows import NO_ATTEMPT
from sabot.dataflow.stage import StoredSplit
from sabot.wire.agent_pb2 import Failure, RunTaskReply

_NONE: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class TaskState:
    """`lacks` are partitions whose owner does not hold what the task sent; of these `away` has, by agent, those whose
    owner it was before it began to leave: it still holds them.
    """

    attempts: int = 0  # started so far, by all coordinators
    commits: tuple[tuple[int, Partitions], ...] = ()
    lacks: frozenset[int] = _NONE
    away: tuple[tuple[int, frozenset[int]], ...] = ()
    done_by: int | None = None  # the agent of the latest attempt that succeeded
    reply: RunTaskReply | None = None
    integrity_failures: int = 0
    move_failed: bool = False
    held: bool = False
    doubled: bool = False  # its attempt under way has been given a second one
    failures: tuple[Failure, ...] = ()

    def packed(self) -> tuple[Any, ...]:
        """What another coordinator goes on from: to that one nothing is under way, held or failed."""
        reply = None if self.reply is None else self.reply.SerializeToString()
        return self.attempts, self.commits, self.lacks, self.away, self.done_by, reply, self.integrity_failures

    @classmethod
    def unpacked(cls, packed: tuple[Any, ...]) -> TaskState:
        attempts, commits, lacks, away, done_by, reply, integrity_failures = packed
        return cls(
            attempts=attempts,
            commits=commits,
            lacks=lacks,
            away=away,
            done_by=done_by,
            reply=None if reply is None else RunTaskReply.FromString(reply),
            integrity_failures=integrity_failures,
        )

    def visible(self, partition: int) -> int:
        """The attempt whose rows of the partition count; NO_ATTEMPT where there is none, as the stage stopped early."""
        if not self.commits:
            return NO_ATTEMPT
        return next(
            attempt for attempt, partitions in reversed(self.commits) if partitions is None or partition in partitions
        )

    def add_commit(self, attempt: int, partitions: Partitions) -> None:
        """What the attempt sent is visible, and lies with those who own it."""
        self.commits = (*(() if partitions is None else self.commits), (attempt, partitions))
        self.lacks = _NONE if partitions is None else self.lacks - partitions
        left = [] if partitions is None else [(agent, held - partitions) for agent, held in self.away]
        self.away = tuple((agent, held) for agent, held in left if held)

    def reset(self) -> None:
        """All that was committed is void."""
        self.commits, self.lacks, self.away, self.done_by, self.move_failed = (), _NONE, (), None, False

    def hand_over(self, agent: int, partitions: frozenset[int]) -> None:
        """Of what is lacking the agent, which leaves, holds these partitions."""
        if partitions:
            self.away = (*self.away, (agent, partitions))

    def fail_move(self, agent: int, *, again: bool) -> None:
        """The agent could not send on what it holds; unless it is to try once more, that is given up."""
        if self.move_failed or not again:
            self.forget(agent)
        self.move_failed = True

    def rests_on(self, agent: int, wanted: Partitions, *, keeps: bool) -> bool:
        """Whether the agent holds what is `wanted` of the task, or, where agents keep the answer, its part of that."""
        if keeps:
            return self.done_by == agent
        return wanted is not None and any(holder == agent and held & wanted for holder, held in self.away)

    def forget(self, agent: int) -> None:
        """The agent holds nothing any more."""
        if self.away:
            self.away = tuple((holder, held) for holder, held in self.away if holder != agent)

    def to_move(self, wanted: Partitions) -> tuple[int, frozenset[int]] | None:
        """Of the partitions that are to be sent again, those that an agent can send on as they are, and that agent."""
        if wanted is None:
            return None
        found = ((agent, held & wanted) for agent, held in self.away)
        return next(((agent, here) for agent, here in found if here), None)

    def needs_input(self, wanted: Partitions) -> bool:
        """Whether some of the partitions that are to be sent are to be made, as nobody can send them on."""
        return wanted is None or not wanted <= _NONE.union(*(held for _, held in self.away))

    def stored(self, partitions: frozenset[int]) -> StoredSplit:
        """These partitions, by the attempts that are visible for them."""
        by_attempt: dict[int, set[int]] = {}
        for partition in sorted(partitions):
            by_attempt.setdefault(self.visible(partition), set()).add(partition)
        return StoredSplit(sent=tuple((attempt, frozenset(part)) for attempt, part in by_attempt.items()))
