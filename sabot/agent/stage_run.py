"""One stage of a running job: which tasks are to be done, where they may run, and what the ended ones gave. Pure.

A task of a stage that shuffles commits attempts: the first sends to every partition, a replay only to those that were
lost since. For each (task, partition) the latest attempt that sent to it is visible, and no other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sabot.dataflow.enough_rows import NO_ATTEMPT, rows_wanted
from sabot.dataflow.stage import Aggregate, HashShuffle, ResultOutput, RoundRobinShuffle, ShuffleInput, Split, Stage
from sabot.wire.agent_pb2 import Failure, ResultPartition, RunTaskReply, StageProgress

Partitions = frozenset[int] | None
"""Some partitions of a shuffle, or all of them."""

_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An attempt under way, and what it sends."""

    task: int
    agent: int
    attempt: int
    partitions: Partitions


@dataclass(slots=True, eq=False)
class _Task:
    """What is known of one task. `lacks` are partitions whose owner no longer holds what the task sent."""

    attempts: int = 0  # started so far
    commits: tuple[tuple[int, Partitions], ...] = ()
    lacks: frozenset[int] = _NONE
    done_by: int | None = None  # the agent of the latest attempt that succeeded
    reply: RunTaskReply | None = None
    running: Running | None = None
    held: bool = False
    failures: tuple[Failure, ...] = ()
    integrity_failures: int = 0


class StageRun:
    """A stage waits until `start`; it is done whenever nothing of it is to be done, which a lost agent may change."""

    def __init__(self, stage: Stage, *, tasks_expected: int, repeatable: bool) -> None:
        self.stage = stage
        self.repeatable = repeatable
        self.splits: Sequence[Split] = ()
        self.started = False
        self.todo: dict[int, Partitions] = {}
        self.tasks_redone = 0
        self.stopped_early = False
        self._tasks_expected = tasks_expected
        self._tasks: list[_Task] = []
        self._anywhere: deque[int] = deque()
        self._pinned: dict[int, deque[int]] = {}
        self._plain_attempts: tuple[int, ...] | None = None
        self._rows_wanted = rows_wanted(stage)
        self._rows_out = 0
        self._wire_bytes = 0

    @property
    def shuffles(self) -> bool:
        return isinstance(self.stage.output, (HashShuffle, RoundRobinShuffle))

    @property
    def _groups_in_part_what_was_shuffled(self) -> bool:
        parts = (step for step in self.stage.steps if isinstance(step, Aggregate) and step.each_row is not None)
        return isinstance(self.stage.input, ShuffleInput) and any(parts)

    @property
    def done(self) -> bool:
        return self.started and not self.todo

    def start(self, splits: Sequence[Split]) -> None:
        """Make a task of each split."""
        self.started = True
        self.splits = splits
        self._tasks = [_Task() for _ in splits]
        self.todo = dict.fromkeys(range(len(splits)))

    def queue(self, agent_of: Callable[[Split], int | None], ready: Callable[[Split], bool]) -> None:
        """Line up anew what may run now; `agent_of` names the agent that must run a split, or None for any."""
        self._anywhere.clear()
        self._pinned.clear()
        for task in self.todo:
            state, split = self._tasks[task], self.splits[task]
            if state.running is None and not state.held and ready(split):
                agent = agent_of(split)
                queue = self._anywhere if agent is None else self._pinned.setdefault(agent, deque())
                queue.append(task)

    def take(self, agent: int) -> Running | None:
        """The next task for `agent`, now running there: one that only it may run first."""
        queue = self._pinned.get(agent) or self._anywhere
        if not queue:
            return None
        task = queue.popleft()
        state = self._tasks[task]
        state.running = Running(task=task, agent=agent, attempt=state.attempts, partitions=self.todo[task])
        self.tasks_redone += state.attempts > 0
        state.attempts += 1
        return state.running

    def running(self, task: int, attempt: int) -> Running | None:
        """That attempt, if it is under way and counts."""
        running = self._tasks[task].running if task < len(self._tasks) else None
        return running if running is not None and running.attempt == attempt else None

    def is_unlike(self, running: Running, reply: RunTaskReply) -> bool:
        """Whether a replay has placed its rows otherwise than the attempt that is visible in part. A stage that is
        repeatable needs no digest, but its number of rows is looked at all the same.
        """
        state = self._tasks[running.task]
        if running.partitions is None or state.reply is None:
            return False
        if self.repeatable:
            # Into how many partial groups rows are put may go by their order, and a shuffle does not keep that.
            return not self._groups_in_part_what_was_shuffled and reply.rows_out != state.reply.rows_out
        return (reply.rows_out, reply.placement_digest) != (state.reply.rows_out, state.reply.placement_digest)

    def commit(self, running: Running, reply: RunTaskReply) -> bool:
        """The attempt has succeeded and is visible from now on. Whether the task has nothing more to do."""
        state = self._tasks[running.task]
        state.running, state.done_by, state.failures = None, running.agent, ()
        self._rows_out += reply.rows_out - (state.reply.rows_out if state.reply is not None else 0)
        self._wire_bytes += reply.wire_bytes
        state.reply = _kept(reply)
        if self.shuffles:
            kept = () if running.partitions is None else state.commits
            state.commits = (*kept, (running.attempt, running.partitions))
            self._plain_attempts = None
            if running.partitions is None:
                state.lacks = _NONE
            else:
                state.lacks -= running.partitions
        left = self.todo[running.task]
        if running.partitions is not None and left is not None and left - running.partitions:
            self.todo[running.task] = left - running.partitions
            return False
        del self.todo[running.task]
        return True

    def stop_early(self) -> list[Running]:
        """Where all the rows are there that anyone will take: leave out the tasks that have given none yet. Gives their
        attempts under way, which count no more.
        """
        if self.stopped_early or not self._has_enough_rows():
            return []
        self.stopped_early = True
        without = [task for task in self.todo if self._tasks[task].done_by is None]
        for task in without:
            del self.todo[task]
            self._tasks[task].held = False
        return self.interrupt(tasks=frozenset(without))

    def _has_enough_rows(self) -> bool:
        if self._rows_wanted is None:
            return False
        replies = (state.reply for state in self._tasks if state.done_by is not None and state.reply is not None)
        return sum(reply.rows_out for reply in replies) >= self._rows_wanted

    def interrupt(
        self, *, agent: int | None = None, tasks: frozenset[int] = _NONE, senders: bool = False
    ) -> list[Running]:
        """Attempts that count no more: those on `agent`, those of `tasks`, and with `senders` all that send rows."""
        ended = []
        for state in self._tasks:
            running = state.running
            if running is not None and (running.agent == agent or running.task in tasks or (senders and self.shuffles)):
                ended.append(running)
                state.running = None
        return ended

    def hold(self, running: Running, failure: Failure) -> None:
        """The attempt has failed, and its task waits for `release`."""
        state = self._tasks[running.task]
        state.running, state.held = None, True
        state.failures = (*state.failures, failure)

    def held_failures(self) -> list[tuple[Failure, ...]]:
        """Of each task that is held, its failures since it last succeeded."""
        return [state.failures for state in self._tasks if state.held]

    def note_integrity_failure(self, task: int) -> int:
        """How often `task` has found rows that are there and wrong, this time included."""
        self._tasks[task].integrity_failures += 1
        return self._tasks[task].integrity_failures

    def release(self, *, forgive: bool) -> None:
        """What was held may run again; `forgive`: the last failure had a reason outside the task."""
        for state in self._tasks:
            if state.held:
                state.held = False
                state.failures = state.failures[:-1] if forgive else state.failures

    def lose(self, partitions: frozenset[int]) -> None:
        """What committed attempts sent to these partitions is there no longer."""
        same: dict[frozenset[int], frozenset[int]] = {}  # thousands of tasks share few sets
        for state in self._tasks:
            if state.commits:
                lacks = state.lacks | partitions
                state.lacks = same.setdefault(lacks, lacks)

    def reset(self) -> list[Running]:
        """Forget all that was committed: another answer is coming. Gives the attempts that count no more."""
        ended = self.interrupt(senders=True)
        for state in self._tasks:
            if state.running is not None:
                ended.append(state.running)
            state.commits, state.lacks, state.done_by, state.running = (), _NONE, None, None
        self._plain_attempts = None
        self.stopped_early = False
        self.todo = dict.fromkeys(range(len(self._tasks)))
        return ended

    def find_work(self, needed: Partitions, lost: frozenset[int]) -> None:
        """Sets `todo` anew, where readers need the `needed` partitions and the agents `lost` are gone."""
        if not self.started:
            return
        self.todo = {}
        same: dict[frozenset[int], frozenset[int]] = {}
        for task, state in enumerate(self._tasks):
            if state.done_by is None:
                if not self.stopped_early:
                    self.todo[task] = None
            elif self.shuffles:
                again = state.lacks if needed is None else state.lacks & needed
                if again:
                    self.todo[task] = same.setdefault(again, again)
            elif isinstance(self.stage.output, ResultOutput) and state.done_by in lost:
                self.todo[task] = None

    @property
    def replayed(self) -> frozenset[int]:
        """The partitions that committed attempts have sent and that are to be sent again."""
        return _NONE.union(*(partitions for partitions in set(self.todo.values()) if partitions is not None))

    def missing(self) -> Partitions:
        """The partitions that are not whole yet, of those that are to be sent."""
        if not self.started or any(partitions is None for partitions in self.todo.values()):
            return None
        return self.replayed

    def attempts_for(self, partition: int) -> tuple[int, ...]:
        """The one visible attempt of each task for `partition`; NO_ATTEMPT where the stage has stopped without one."""
        if self._plain_attempts is None and all(len(state.commits) == 1 for state in self._tasks):
            self._plain_attempts = tuple(state.commits[0][0] for state in self._tasks)
        if self._plain_attempts is not None:
            return self._plain_attempts
        return tuple(_visible(state.commits, partition) for state in self._tasks)

    def results(self) -> list[ResultPartition]:
        """The parts of the answer, in order."""
        return [self._reply(task).result for task in range(len(self.splits))]

    def files(self) -> tuple[str, ...]:
        """What the visible attempts have written, for publishing."""
        return tuple(file.path for task in range(len(self.splits)) for file in self._reply(task).written)

    def progress(self) -> StageProgress:
        return StageProgress(
            stage_id=self.stage.stage_id,
            label=self.stage.label,
            tasks_total=len(self.splits) if self.started else self._tasks_expected,
            tasks_done=len(self.splits) - len(self.todo),
            rows_out=self._rows_out,
            wire_bytes=self._wire_bytes,
            tasks_redone=self.tasks_redone,
        )

    def _reply(self, task: int) -> RunTaskReply:
        reply = self._tasks[task].reply
        assert reply is not None, "asked for before the stage was done"
        return reply


def _visible(commits: tuple[tuple[int, Partitions], ...], partition: int) -> int:
    if not commits:  # as the stage has stopped early, or else nobody would read yet
        return NO_ATTEMPT
    return next(attempt for attempt, partitions in reversed(commits) if partitions is None or partition in partitions)


def _kept(reply: RunTaskReply) -> RunTaskReply:
    """What is asked for later. Sums per partition are not: thousands of tasks have thousands of them."""
    result = reply.result if reply.HasField("result") else None
    return RunTaskReply(
        rows_out=reply.rows_out, placement_digest=reply.placement_digest, written=reply.written, result=result
    )
