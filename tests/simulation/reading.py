"""What one attempt reads, as sabot.agent.tasks.task_input does: its partition, or a share of it that it pulls from the
owner, and copies of stages that were broadcast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sabot.dataflow.join_types import RIGHT
from sabot.dataflow.stage import PartitionSplit
from sabot.errors import PeerRefused, SabotError
from sabot.wire.agent_pb2 import PartitionSum, ReleasedSum

from .jobs import Attempts, Rows, joins, rows_of_split

if TYPE_CHECKING:
    from .task import Task

PULL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    stage_id: int
    partition: int
    attempts: Attempts
    owner: str  # its address
    local: bool  # whatever the epoch
    copied: bool = False
    looked_at: bool = False  # the right side of a join, of which no row goes on


class Reading:
    """`have` gets the rows; none of a copy, or of the right side of a join, which are only looked at."""

    def __init__(self, task: Task, have: Callable[[Rows], None]) -> None:
        self._task, self._have = task, have
        self._rows: list[int] = []
        self._looked_at = 0
        self._done = 0
        self._wanted = [*self._inputs(), *self._copies()]

    def begin(self) -> None:
        split = self._task.command.split
        if not isinstance(split, PartitionSplit):
            self._rows += rows_of_split(split)
        self._go_on()

    def _inputs(self) -> list[_Wanted]:
        task, command, split = self._task, self._task.command, self._task.command.split
        if not isinstance(split, PartitionSplit):
            return []
        owner = task.agent.address if split.share is None else self._owner_of(split.partition)
        wanted = []
        for side, (stage_id, attempts) in enumerate(command.inputs):
            index, count = (0, 1) if split.share is None else split.share.of_side(side)
            wanted.append(
                _Wanted(
                    stage_id=stage_id,
                    partition=split.partition,
                    attempts=list(zip(command.read_tasks or range(len(attempts)), attempts, strict=True))[index::count],
                    owner=owner,
                    local=split.share is None,
                    looked_at=side == RIGHT and joins(task.stage),
                )
            )
        return wanted

    def _copies(self) -> list[_Wanted]:
        return [
            _Wanted(
                stage_id=copy.stage_id,
                partition=copy.partition,
                attempts=list(enumerate(copy.attempts)),
                owner=self._owner_of(copy.partition),
                local=self._owner_of(copy.partition) == self._task.agent.address,
                copied=True,
            )
            for copy in self._task.command.copies
        ]

    def _owner_of(self, partition: int) -> str:
        held = self._task.held
        return held.agents[held.table.owners[partition]].flight_address

    def _go_on(self) -> None:
        """One after the other."""
        task, agent = self._task, self._task.agent
        if self._done == len(self._wanted):
            task.reply.rows_in = len(self._rows) + self._looked_at
            self._have(tuple(self._rows))
            return
        wanted = self._wanted[self._done]
        if wanted.local:
            self._took(agent.take(task.held, wanted.stage_id, wanted.partition, wanted.attempts))
            return
        if task.held.table.epoch != task.command.epoch:
            raise PeerRefused(f"{task} is to pull in epoch {task.command.epoch}, which is over")
        argument = (task.held.plan.job_id, wanted.stage_id, wanted.partition, wanted.attempts)
        answered = partial(self._answered, self._done)
        agent.world.network.call(agent, wanted.owner, "share", argument, answer=answered, timeout_s=PULL_TIMEOUT_S)

    def _answered(self, number: int, answer: Any) -> None:
        if self._task.ended or self._done > number:  # answers may come twice
            return
        if isinstance(answer, SabotError):
            self._task.end(answer)
            return
        try:
            self._took(answer)
        except SabotError as error:
            self._task.end(error)

    def _took(self, released: tuple[list[int], int]) -> None:
        wanted, (rows, content_sum) = self._wanted[self._done], released
        part = PartitionSum(partition=wanted.partition, rows=len(rows), content_sum=content_sum)
        told = ReleasedSum(stage_id=wanted.stage_id, sum=part)
        if wanted.copied:
            self._task.reply.copied.append(told)
        else:
            self._task.reply.released.append(told)
            self._rows += rows if not wanted.looked_at else []
            self._looked_at += len(rows) if wanted.looked_at else 0
        self._done += 1
        self._go_on()
