"""One stage of a running job: which of its tasks wait, where they may run, and what the ended ones gave. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from sabot.dataflow.stage import Split, Stage
from sabot.wire.agent_pb2 import ResultPartition, RunTaskReply, StageProgress


class StageRun:
    """A stage waits until `start`, then hands out each of its tasks once, and is done when all of them are."""

    def __init__(self, stage: Stage, *, tasks_expected: int) -> None:
        self.stage = stage
        self.splits: Sequence[Split] = ()
        self.started = False
        self._tasks_expected = tasks_expected
        self._anywhere: deque[int] = deque()
        self._pinned: dict[int, deque[int]] = {}
        self._running: dict[int, int] = {}
        self._replies: dict[int, RunTaskReply] = {}
        self._rows_out = 0
        self._wire_bytes = 0

    @property
    def done(self) -> bool:
        return self.started and len(self._replies) == len(self.splits)

    @property
    def attempts(self) -> tuple[int, ...]:
        """The one visible attempt of each task. A task is tried once, until recovery can tell attempts apart."""
        return (0,) * len(self.splits)

    def start(self, splits: Sequence[Split], agent_of: Callable[[Split], int | None]) -> None:
        """Make tasks of `splits`; `agent_of` names the agent that must run one, or None for any."""
        self.started = True
        self.splits = splits
        for task, split in enumerate(splits):
            agent = agent_of(split)
            queue = self._anywhere if agent is None else self._pinned.setdefault(agent, deque())
            queue.append(task)

    def take(self, agent: int) -> int | None:
        """The next task for `agent`, now running there: one that only it may run first."""
        queue = self._pinned.get(agent) or self._anywhere
        if not queue:
            return None
        task = queue.popleft()
        self._running[task] = agent
        return task

    def is_running(self, task: int, agent: int) -> bool:
        return self._running.get(task) == agent

    def end(self, task: int, reply: RunTaskReply) -> None:
        """The running `task` has succeeded."""
        del self._running[task]
        self._replies[task] = reply
        self._rows_out += reply.rows_out
        self._wire_bytes += reply.wire_bytes

    def results(self) -> list[ResultPartition]:
        """The parts of the answer, in order."""
        return [self._replies[task].result for task in range(len(self.splits))]

    def files(self) -> tuple[str, ...]:
        return tuple(self._replies[task].written_file for task in range(len(self.splits)))

    def progress(self) -> StageProgress:
        return StageProgress(
            stage_id=self.stage.stage_id,
            label=self.stage.label,
            tasks_total=len(self.splits) if self.started else self._tasks_expected,
            tasks_done=len(self._replies),
            rows_out=self._rows_out,
            wire_bytes=self._wire_bytes,
        )
