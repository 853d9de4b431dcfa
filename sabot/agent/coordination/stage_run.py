"""One stage of a running job: which tasks are to be done, where they may run, and what the ended ones gave. Pure.

A task of a stage that shuffles commits attempts: the first sends to every partition, a replay only to those that were
lost since. For each (task, partition) the latest attempt that sent to it is visible, and no other. An attempt that is
slow gets a second one beside it; whichever commits first is the task's, and the other counts no more.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from sabot.agent.coordination.range_choice import Ranges, TaskSample
from sabot.agent.coordination.running import Partitions, Running
from sabot.agent.coordination.slow_tasks import Durations, Elsewhere, SlowRule
from sabot.agent.coordination.stage_account import StageAccount, are_unlike, part_kept, skew_of
from sabot.agent.coordination.task_queues import TaskQueues
from sabot.agent.coordination.task_state import TaskState
from sabot.dataflow.enough_rows import rows_wanted
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle
from sabot.dataflow.splits import home_tasks
from sabot.dataflow.stage import ResultOutput, Shuffle, Split, Stage
from sabot.wire.agent_pb2 import Failure, Quarantined, RunTaskReply, StageProgress

_NONE: frozenset[int] = frozenset()
_MADE_ANEW = {"stage", "gate", "splits", "_packed_splits", "_tasks", "_under_way", "_queues"}


class StageRun:
    """A stage waits until `start`; it is done whenever nothing of it is to be done, which a lost agent may change."""

    def __init__(self, stage: Stage, *, tasks_expected: int, repeatable: bool, num_partitions: int = 0) -> None:
        self.stage = stage
        self.repeatable = repeatable
        self._num_partitions = num_partitions  # of the shuffle, where it has one
        self.splits: Sequence[Split] = ()
        self._packed_splits: bytes | None = None  # they are packed once
        self.ranges: Ranges | None = None  # chosen once: what is sent again is sent by the same
        self.started = False
        self.todo: dict[int, Partitions] = {}
        self.tasks_redone = 0
        self.stopped_early = False
        self.second_attempts = 0
        self.gate: tuple[int, int] | None = None  # no task starts before all agents have the journal up to here
        self._tasks_expected = tasks_expected
        self._first_attempt = 0
        self._tasks: list[TaskState] = []
        self._under_way: dict[int, tuple[Running, ...]] = {}  # by task; two at most
        self._durations = Durations()
        self._queues = TaskQueues()
        self._plain_attempts: tuple[int, ...] | None = None
        self._rows_wanted = rows_wanted(stage)
        self._rows_committed = 0
        self._account = StageAccount()

    @property
    def shuffles(self) -> bool:
        return isinstance(self.stage.output, Shuffle)

    @property
    def tasks(self) -> Sequence[TaskState]:
        return self._tasks

    @property
    def under_way(self) -> list[Running]:
        return [running for attempts in self._under_way.values() for running in attempts]

    @property
    def keeps_order(self) -> bool:
        """Whether its readers want rows in the order of the tasks that sent them."""
        return isinstance(self.stage.output, HomeShuffle | RangeShuffle)

    @property
    def done(self) -> bool:
        return self.started and not self.todo

    @property
    def has_waiting_tasks(self) -> bool:
        """Whether tasks wait for an agent, and may be started."""
        return self.gate is None and bool(self._queues)

    def start(self, splits: Sequence[Split], ranges: Ranges | None = None) -> None:
        """Make a task of each split; `ranges` are those that a RangeShuffle sends to."""
        self.started = True
        self.ranges = ranges
        self.splits, self._packed_splits = splits, None
        self._tasks = [TaskState() for _ in splits]
        self.todo = dict.fromkeys(range(len(splits)))

    def queue(
        self,
        agent_of: Callable[[Split], int | None],
        ready: Callable[[Split], bool],
        prefer: Callable[[int], int | None] = lambda _: None,
    ) -> None:
        """Line up anew what may run now; `agent_of` names the agent that must run a split, or None for any, and
        `prefer` the one that had better run a task.
        """
        self._queues = TaskQueues()
        for task in self.todo:
            state, split = self._tasks[task], self.splits[task]
            if task in self._under_way or state.held:
                continue
            moved = state.to_move(self.todo[task])
            if moved is not None:
                self._queues.add_move(task, moved[0])
            elif ready(split):
                self._queues.add(task, agent=agent_of(split), preferred=prefer(task))

    def take_move(self, agent: int, *, now_s: float) -> Running | None:
        """The next task of whose rows `agent`, which leaves, is to send on what it holds."""
        task = self._queues.take_move(agent)
        moved = None if task is None else self._tasks[task].to_move(self.todo[task])
        if task is None or moved is None:
            return None
        split = self._tasks[task].stored(moved[1])
        return self._begin(self._new_attempt(task, agent, split, now_s, partitions=moved[1]))

    def take(self, agent: int, *, now_s: float) -> Running | None:
        """The next task for `agent`, now running there."""
        task = self._queues.take(agent)
        if task is None:
            return None
        return self._begin_task(task, agent, self.splits[task], now_s)

    def take_slow(self, agent: int, *, now_s: float, rule: SlowRule, elsewhere: Elsewhere) -> Running | None:
        """A second attempt for `agent` of a task that is slow on another one; `elsewhere` says what to read there in
        the place of a split, None where only the first agent can.
        """
        limit_s = rule.limit_s(self._durations, tasks=len(self.splits))
        if limit_s is None:
            return None
        for attempts in self._under_way.values():
            first = attempts[0]
            if first.agent == agent or self._tasks[first.task].doubled or now_s - first.since_s < limit_s:
                continue
            split = elsewhere(first.split)
            if split is not None:
                attempt = self._first_attempt + self._tasks[first.task].attempts
                self._tasks[first.task].doubled = True
                self.second_attempts += 1
                return self._begin(
                    replace(first, agent=agent, attempt=attempt, split=split, since_s=now_s, second=True)
                )
        return None

    def take_from(self, owners: Collection[int], agent: int, *, now_s: float, elsewhere: Elsewhere) -> Running | None:
        """For `agent`, which nothing waits for, the last of the tasks that wait for the busiest of `owners`."""
        task = self._queues.last_of_busiest(owners)
        split = elsewhere(self.splits[task]) if task is not None else None
        if split is None:
            return None
        return self._begin_task(self._queues.take_last_of_busiest(owners), agent, split, now_s)

    def _begin_task(self, task: int, agent: int, split: Split, now_s: float) -> Running:
        self.tasks_redone += self._tasks[task].attempts > 0
        return self._begin(self._new_attempt(task, agent, split, now_s, partitions=self.todo[task]))

    def _new_attempt(self, task: int, agent: int, split: Split, now_s: float, *, partitions: Partitions) -> Running:
        attempt = self._first_attempt + self._tasks[task].attempts
        return Running(task=task, agent=agent, attempt=attempt, partitions=partitions, split=split, since_s=now_s)

    def _begin(self, running: Running) -> Running:
        self._tasks[running.task].attempts += 1
        self._under_way[running.task] = (*self._under_way.get(running.task, ()), running)
        return running

    def running(self, task: int, attempt: int) -> Running | None:
        """That attempt, if it is under way and counts."""
        return next((running for running in self._under_way.get(task, ()) if running.attempt == attempt), None)

    def drop(self, running: Running) -> bool:
        """The attempt has ended. Whether another one of its task goes on."""
        left = tuple(other for other in self._under_way[running.task] if other is not running)
        if left:
            self._under_way[running.task] = left
            return True
        del self._under_way[running.task]
        self._tasks[running.task].doubled = False
        return False

    def is_unlike(self, running: Running, reply: RunTaskReply) -> bool:
        """Whether a replay has placed its rows otherwise than the attempt that is visible in part."""
        before = self._tasks[running.task].reply
        if running.partitions is None or before is None or running.moves:
            return False
        return are_unlike(self.stage, before, reply, repeatable=self.repeatable)

    def commit(self, running: Running, reply: RunTaskReply, *, now_s: float) -> list[Running]:
        """The attempt has succeeded and is visible from now on. Gives those of its task that count no more; the task is
        done unless it is in `todo` still.
        """
        state = self._tasks[running.task]
        self._durations.add(now_s - running.since_s)
        rivals = self.interrupt(lambda other: other.task == running.task and other is not running)
        self.drop(running)
        before = state.reply.rows_out if state.done_by is not None and state.reply is not None else 0
        self._rows_committed += reply.rows_out - before
        state.done_by, state.failures = running.agent, ()
        self._account.add(running.agent, reply, state.reply)
        state.reply = part_kept(reply)
        if self.shuffles:
            state.add_commit(running.attempt, running.partitions)
            self._plain_attempts = None
        self._have_done(running)
        return rivals

    def commit_move(self, running: Running, reply: RunTaskReply) -> None:
        """What an agent that leaves held of the task's rows lies with those who own it now, under another attempt."""
        assert running.partitions is not None
        self.drop(running)
        self._tasks[running.task].add_commit(running.attempt, running.partitions)
        self._account.add_move(running.agent, reply)
        self._plain_attempts = None
        self._have_done(running)

    def _have_done(self, running: Running) -> None:
        left = self.todo[running.task]
        if running.partitions is not None and left is not None and left - running.partitions:
            self.todo[running.task] = left - running.partitions
        else:
            del self.todo[running.task]

    def stop_early(self) -> list[Running]:
        """Leave out the tasks without rows once there are as many as anyone will take; gives their attempts."""
        if self.stopped_early or self._rows_wanted is None or self._rows_committed < self._rows_wanted:
            return []
        self.stopped_early = True
        without = {task for task in self.todo if self._tasks[task].done_by is None}
        for task in without:
            del self.todo[task]
            self._tasks[task].held = False
        return self.interrupt(lambda running: running.task in without)

    def interrupt(self, is_void: Callable[[Running], bool]) -> list[Running]:
        """Ends what is under way and `is_void`; gives it."""
        ended = [running for running in self.under_way if is_void(running)]
        for running in ended:
            self.drop(running)
        return ended

    def fail(self, running: Running, failure: Failure) -> None:
        """The attempt has failed; where no other one goes on, its task waits for `release`."""
        self.drop(running)
        self._tasks[running.task].failures += (failure,)
        self.hold(running.task)

    def fail_move(self, running: Running, *, again: bool) -> None:
        """The rows were not sent on. They are once more where that may help; else they are made anew."""
        self.drop(running)
        self._tasks[running.task].fail_move(running.agent, again=again)
        self.hold(running.task)

    def to_make(self) -> list[int]:
        """The tasks that read their input, once more or for the first time."""
        return [task for task, wanted in self.todo.items() if self._tasks[task].needs_input(wanted)]

    def hold(self, task: int) -> None:
        """The task waits for `release`, unless an attempt of it is under way."""
        self._tasks[task].held = task not in self._under_way

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
        if isinstance(self.stage.output, HomeShuffle):
            for partition in partitions:
                for state in (self._tasks[task] for task in self.senders_to(partition) or ()):
                    state.lacks |= {partition} if state.commits else _NONE
            return
        same: dict[frozenset[int], frozenset[int]] = {}  # thousands of tasks share few sets
        for state in self._tasks:
            if state.commits:
                lacks = state.lacks | partitions
                state.lacks = same.setdefault(lacks, lacks)

    def reset(self) -> list[Running]:
        """Forget all that was committed: another answer is coming. Gives the attempts that count no more."""
        ended = self.interrupt(lambda _: True)
        for state in self._tasks:
            state.reset()
        self._plain_attempts = None
        self._rows_committed = 0
        self.stopped_early = False
        self.todo = dict.fromkeys(range(len(self._tasks)))
        return ended

    def parts(self) -> dict[str, Any]:
        """All that there is to know beyond the stage itself, to be packed for another coordinator."""
        if self._packed_splits is None:
            self._packed_splits = pickle.dumps(self.splits)
        own = {name: value for name, value in vars(self).items() if name not in _MADE_ANEW}
        return {"own": own, "splits": self._packed_splits, "tasks": [task.packed() for task in self._tasks]}

    def restore(self, parts: dict[str, Any]) -> None:
        vars(self).update(parts["own"])
        self.splits = pickle.loads(parts["splits"])
        self._tasks = [TaskState.unpacked(packed) for packed in parts["tasks"]]

    def resume(self, first_attempt: int, splits: Sequence[Split]) -> None:
        """Under another coordinator attempts have other numbers from now on, and the tasks read `splits`."""
        self._first_attempt = first_attempt
        self.splits, self._packed_splits = splits, None

    def recall(self, running: Running) -> None:
        """The attempt was under way when what follows of it was written down."""
        self._under_way[running.task] = (running,)

    def find_work(self, needed: Partitions, lost: frozenset[int]) -> list[Running]:
        """Sets `todo` anew, where readers need the `needed` partitions and the agents `lost` are gone. Gives the
        attempts of what is not in it, which count no more."""
        self.todo = {}
        same: dict[frozenset[int], frozenset[int]] = {}
        for task, state in enumerate(self._tasks):  # none before it starts
            if state.done_by is None:
                if not self.stopped_early:
                    self.todo[task] = None
            elif self.shuffles:
                again = state.lacks if needed is None else state.lacks & needed
                if again:
                    self.todo[task] = same.setdefault(again, again)
            elif isinstance(self.stage.output, ResultOutput) and state.done_by in lost:
                self.todo[task] = None
        return self.interrupt(lambda running: running.task not in self.todo)

    @property
    def replayed(self) -> frozenset[int]:
        """The partitions that committed attempts have sent and that are to be sent again."""
        return _NONE.union(*(partitions for partitions in set(self.todo.values()) if partitions is not None))

    def missing(self) -> Partitions:
        """The partitions that are not whole yet, of those that are to be sent."""
        if not self.started or any(partitions is None for partitions in self.todo.values()):
            return None
        return self.replayed

    def senders_to(self, partition: int) -> tuple[int, ...] | None:
        """The tasks that alone send to the partition; None where all may do so."""
        if not isinstance(self.stage.output, HomeShuffle):
            return None
        return tuple(home_tasks(partition, tasks=len(self._tasks), num_partitions=self._num_partitions))

    def attempts_for(self, partition: int) -> tuple[int, ...]:
        """The one visible attempt for `partition` of each task that may send to it."""
        senders = self.senders_to(partition)
        if senders is not None:
            return tuple(self._tasks[task].visible(partition) for task in senders)
        if self._plain_attempts is None and all(len(state.commits) == 1 for state in self._tasks):
            self._plain_attempts = tuple(state.commits[0][0] for state in self._tasks)
        if self._plain_attempts is not None:
            return self._plain_attempts
        return tuple(state.visible(partition) for state in self._tasks)

    def replies(self) -> list[RunTaskReply]:
        """Of all tasks in order, once the stage is done; of each what is kept of a reply."""
        found = [state.reply for state in self._tasks if state.reply is not None]
        assert len(found) == len(self.splits), "asked for before the stage was done"
        return found

    def samples(self) -> list[TaskSample]:
        """What the tasks told of the keys of their rows."""
        return [TaskSample(rows=reply.rows_out, keys=reply.key_sample) for reply in self.replies()]

    def quarantined(self) -> list[Quarantined]:
        """What functions failed on in the attempts that count."""
        counted = (state.reply for state in self._tasks if state.reply is not None and state.done_by is not None)
        return [part for reply in counted for part in reply.quarantined]

    def progress(self) -> StageProgress:
        """Where it stands; the skew is told of a stage that is done and sends nothing."""
        progress = StageProgress(
            stage_id=self.stage.stage_id,
            label=self.stage.label,
            tasks_total=len(self.splits) if self.started else self._tasks_expected,
            tasks_done=len(self.splits) - len(self.todo),
            tasks_redone=self.tasks_redone,
            second_attempts=self.second_attempts,
        )
        self._account.fill(progress)
        if self.done and not self.shuffles:
            progress.skew = skew_of([state.reply.rows_out for state in self._tasks if state.reply is not None])
        return progress
