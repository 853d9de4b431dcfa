"""Which task of a job an agent is given next: one that waits for it, or one that it can take over from another. Pure.

A reader can be taken over from the owner of its partition, which the other agent pulls: where the owner is slow or
leaves, or where the other one came later and owns nothing.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.job_stages import JobStages, inputs_of
from sabot.agent.coordination.running import Running
from sabot.agent.coordination.slow_tasks import SlowRule, read_elsewhere
from sabot.agent.coordination.stage_run import StageRun
from sabot.dataflow.stage import PartitionSplit, Split, TableInput


class TaskChoice:
    """Over the stages of one job; `slow` says which tasks get a second attempt."""

    def __init__(self, stages: JobStages, slow: SlowRule) -> None:
        self._stages = stages
        self._slow = slow

    @property
    def _waiting(self) -> list[StageRun]:
        return [run for run in self._stages if run.has_waiting_tasks]

    def is_empty(self) -> bool:
        """Whether no task waits for an agent, so that nobody need ask."""
        return not any(run.has_waiting_tasks for run in self._stages)

    def take(self, agent: int) -> ev.StartTask | None:
        """The next task for `agent`, of the earliest stage that has one. An agent that leaves sends on what it holds
        and reads its pieces of tables; of it others take what they can until they own its partitions. An agent that
        came later and owns nothing takes from all owners. They pull the partitions.
        """
        waiting = self._waiting
        for run in waiting:
            move = run.take_move(agent, now_s=self._stages.now_s)
            if move is not None:
                return self._start(run, move)
        leavers = self._stages.leavers
        for run in waiting:
            may_take = agent not in leavers or isinstance(run.stage.input, TableInput)
            running = run.take(agent, now_s=self._stages.now_s) if may_take else None
            if running is not None:
                return self._start(run, running)
        came_later = agent >= self._stages.founders and not self._stages.table.owned_by(agent)
        owners = frozenset(self._stages.table.living) if came_later else leavers
        for run in waiting if agent not in leavers and owners else ():
            elsewhere = partial(self._read_elsewhere, run)
            running = run.take_from(owners, agent, now_s=self._stages.now_s, elsewhere=elsewhere)
            if running is not None:
                return self._start(run, running)
        return None

    def _is_bound_to_owners(self, run: StageRun) -> bool:
        """Whether its tasks can run only where their rows lie: those of tables, and of what stopped early or keeps an
        order, for a ticket for a share names an attempt of every task, and gives rows in any order.
        """
        inputs = [self._stages[stage_id] for stage_id in inputs_of(run)]
        return isinstance(run.stage.input, TableInput) or any(one.stopped_early or one.keeps_order for one in inputs)

    def take_slow(self, agent: int) -> ev.StartTask | None:
        """A second attempt for `agent` of a task that is slow elsewhere."""
        for run in self._stages if agent not in self._stages.leavers else ():
            elsewhere = partial(self._read_elsewhere, run)
            rule = self._slow
            running = (
                run.take_slow(agent, now_s=self._stages.now_s, rule=rule, elsewhere=elsewhere)
                if _is_open(run)
                else None
            )
            if running is not None:
                return self._start(run, running)
        return None

    def _start(self, run: StageRun, running: Running) -> ev.StartTask:
        start = ev.StartTask(
            agent=running.agent,
            stage_id=run.stage.stage_id,
            task=running.task,
            attempt=running.attempt,
            epoch=self._stages.table.epoch,
            split=running.split,
            inputs=(),
            partitions=running.partitions,
            tasks=len(run.splits),
            ranges=run.ranges,
        )
        if running.moves:  # what the agent holds, which is no stage's input
            return start
        partition = running.split.partition if isinstance(running.split, PartitionSplit) else 0
        return replace(
            start,
            inputs=tuple((stage_id, self._stages[stage_id].attempts_for(partition)) for stage_id in inputs_of(run)),
            copies=self._stages.copies_for(running.agent, run),
            read_tasks=next((self._stages[stage_id].senders_to(partition) for stage_id in inputs_of(run)), None),
        )

    def _read_elsewhere(self, run: StageRun, split: Split) -> Split | None:
        if self._is_bound_to_owners(run) or not self._stages.ready(run)(split):
            return None
        partition = split.partition if isinstance(split, PartitionSplit) else 0
        rows = tuple(self._stages.receipts.rows_sent(stage_id)[partition] for stage_id in inputs_of(run))
        return read_elsewhere(split, rows)


def _is_open(run: StageRun) -> bool:
    """Whether tasks of it may be started."""
    return run.started and run.gate is None
