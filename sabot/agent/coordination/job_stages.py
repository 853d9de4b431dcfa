"""The stages of one job together: who owns what, what each still has to do, and which task comes next. Pure.

A lost owner costs a replay: new attempts of the tasks that sent to it, for the lost partitions that are still to be
read, and upstream the same for what those attempts read, where that is lost too. Where a replay has placed rows
otherwise than before, its stage begins anew, with all that read it. A hot partition of a join is read by several tasks,
each of which has a share of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.hot_partitions import HotRule, SentRows, share_hot
from sabot.agent.coordination.owner_table import OwnerTable
from sabot.agent.coordination.range_choice import RangeRule, Ranges, choose_ranges
from sabot.agent.coordination.receipts import Receipts, TaskIdentity
from sabot.agent.coordination.rows_away import forget, hand_over
from sabot.agent.coordination.running import Running
from sabot.agent.coordination.stage_run import StageRun
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle
from sabot.dataflow.repeatable import repeatable_stages
from sabot.dataflow.splits import home_partition, splits_of
from sabot.dataflow.stage import (
    BroadcastShuffle,
    JobPlan,
    PartitionSplit,
    ShuffleInput,
    Split,
    TableSplit,
    shuffle_id,
)
from sabot.errors import PeerLost
from sabot.wire.agent_pb2 import RunTaskReply
from sabot.wire.member import Member

Ended = list[tuple[StageRun, Running]]
"""Attempts under way that count no more."""

MADE_ANEW = {"_plan", "_agents", "leaving", "_hot", "_range_rule", "_runs", "last", "now_s"}
"""What another coordinator is not told of JobStages: it comes from the plan, or begins anew."""


class JobStages:
    """Iterates over its StageRuns in the order of the plan."""

    def __init__(
        self,
        plan: JobPlan,
        agents: Sequence[Member],
        *,
        num_partitions: dict[int, int],
        hot: HotRule,
        ranges: RangeRule,
    ) -> None:
        self._plan = plan
        self._agents = list(agents)
        self.founders = len(agents)
        self.leaving: frozenset[int] = frozenset()  # agents that drain
        self.left: frozenset[int] = frozenset()  # agents that did, and have no part in the job any more
        self._num_partitions = dict(num_partitions)  # of a range shuffle as many as may be, until it is cut
        self._hot = hot
        self.now_s = 0.0  # since the job began, as far as it has been told
        self._range_rule = ranges
        self.receipts = Receipts(plan, num_partitions)
        self.table = OwnerTable.first(agents=len(agents), partitions=max(num_partitions.values(), default=0))
        repeatable = repeatable_stages(plan)
        self._runs = {
            stage.stage_id: StageRun(
                stage,
                tasks_expected=self._partitions_read(stage.input) or 0,
                repeatable=stage.stage_id in repeatable,
                num_partitions=num_partitions.get(stage.stage_id, 0),
            )
            for stage in plan.stages
        }
        self._void: dict[int, set[int]] = {
            stage_id: set() for stage_id in num_partitions
        }  # lost, and still in receipts
        self.last = self._runs[plan.stages[-1].stage_id]

    def __iter__(self) -> Iterator[StageRun]:
        return iter(self._runs.values())

    def __getitem__(self, stage_id: int) -> StageRun:
        return self._runs[stage_id]

    def repeat_commit(self, stage_id: int, running: Running, reply: RunTaskReply, now_s: float) -> None:
        """Takes over a commit that has been written down, at that time of the coordinator that did so."""
        run, self.now_s = self[stage_id], now_s
        run.recall(running)
        self.commit(run, running, reply)

    def resume(self, epoch: int, first_attempt: int) -> None:
        """Go on under another coordinator, from `epoch` on: nothing is under way, and all that is not held is to be
        done. Before `find_work` has been called nothing may be taken.
        """
        self.now_s = 0.0
        self.table = replace(self.table, epoch=epoch, agents=len(self._agents), joining=frozenset())
        for run in self:
            run.resume(first_attempt, [self._placed(split) for split in run.splits])

    def readers_of(self, run: StageRun) -> list[StageRun]:
        """The stages that read the shuffle of `run`, or copies of it."""
        return [reader for reader in self if run.stage.stage_id in reader.stage.reads]

    @property
    def wait_for_journal(self) -> bool:
        """Whether tasks could run if all agents had the journal."""
        return any(run.gate is not None and run.started and not run.done for run in self)

    def start_what_may(self, *, split_bytes: int, slots: int, ranges_wanted: int) -> bool:
        """Make the tasks of every stage whose inputs are done, and which knows where to send rows; whether there was
        one.
        """
        one_started = False
        for run in self:
            if not run.started and all(self[stage_id].done for stage_id in run.stage.waits_for):
                num_partitions = self._partitions_read(run.stage.input)
                splits = splits_of(
                    run.stage, self._plan, num_partitions=num_partitions, split_bytes=split_bytes, slots=slots
                )
                inputs = [
                    SentRows(rows=self.receipts.rows_sent(stage_id), tasks=len(self[stage_id].splits))
                    for stage_id in inputs_of(run)
                ]
                shared = share_hot(run.stage, splits, inputs, slots=slots, rule=self._hot)
                run.start(shared, self._ranges_of(run, ranges_wanted))
                self.queue(run)
                one_started = True
        return one_started

    def admit(self, newcomer: Member) -> int:
        """One more agent, which takes no part before the table says that it is admitted."""
        self._agents.append(newcomer)
        self.table = self.table.with_newcomer()
        return len(self._agents) - 1

    def commit(self, run: StageRun, running: Running, reply: RunTaskReply) -> Ended:
        """The attempt has succeeded: its account is added, it is visible, and its readers may start.

        Unless it is a replay that has placed rows otherwise than before: then its stage begins anew.
        """
        if run.is_unlike(running, reply):
            run.drop(running)
            return self._begin_anew(run) + self.find_work()
        who = TaskIdentity(
            stage=run.stage,
            task=running.task,
            attempt=running.attempt,
            agent_id=self._agents[running.agent].agent_id,
        )
        if running.moves:
            self.receipts.fold_move(who, reply, running.partitions)
            run.commit_move(running, reply)
            self._queue_after(run, running)
            return []
        self.receipts.fold(who, run.splits[running.task], reply, running.partitions)
        rivals = run.commit(running, reply, now_s=self.now_s)
        ended = [(run, void) for void in (*rivals, *run.stop_early())]
        if run.stopped_early:
            self.receipts.stop_early(run.stage.stage_id)
        self._queue_after(run, running)
        return ended

    def _queue_after(self, run: StageRun, running: Running) -> None:
        if running.task in run.todo or run.stopped_early:
            self.queue(run)
        if run.done:
            for reader in self.readers_of(run):
                self.queue(reader)

    def give_up(self, agent: int) -> Ended:
        """Gives what `agent` owned to those that are left, of whom there is one, under the next epoch.

        Attempts that pull or read copies of the agent's end, too. Others go on, and those that send say by which table
        they did. Before `find_work` has been called nothing
        may be taken.
        """
        lost = self.table.owned_by(agent)
        ended: Ended = []
        for run in self:
            ended += self._end_readers_of_copies(run, lost)
        self.table = self.table.without(agent)
        for run in self:
            forget(run, agent)
            ended += [(run, one) for one in run.interrupt(partial(Running.needs, agent=agent))]
            run.release(forgive=True)
            self._lose(run, lost)
        return ended

    @property
    def leavers(self) -> frozenset[int]:
        """The agents that get nothing more to do but what they alone can; none where all leave."""
        leavers = self.leaving.intersection(self.table.living)
        return leavers if len(leavers) < len(self.table.living) else frozenset()

    def hand_over(self) -> None:
        """Others own from the next epoch on what the leavers own, which are to send them what they hold of it. Nothing
        may be under way that sends, pulls, or runs there.
        """
        owned = {agent: self.table.owned_by(agent) for agent in self.leavers}
        self.table = self.table.handed_over(self.leavers)
        for run in self:
            for agent, partitions in owned.items():
                self._lose(run, partitions, holder=agent)
        self.find_work()

    def leave(self, agent: int) -> None:
        """The agent, on which nothing rests any more, has no part in the job from now on."""
        self.table = self.table.left_by(agent)
        for run in self:
            forget(run, agent)
        self.left |= {agent}

    def spoil_input(self, run: StageRun, running: Running, shuffle: str) -> Ended:
        """A reader, which has failed, found its partition of `shuffle`, or its copy, missing or wrong: it is to be sent
        again. Others that are reading it would be held to an account that is not whole: they end.
        """
        split = run.splits[running.task]
        ended: Ended = []
        for stage_id in run.stage.copied:
            if shuffle == shuffle_id(self._plan.job_id, stage_id):
                copy = frozenset({self._copy_of(running.agent, stage_id)})
                for reader in self:
                    ended += self._end_readers_of_copies(reader, copy) if stage_id in reader.stage.copied else []
                run.hold(running.task)
                self._lose(self[stage_id], copy)
                ended += self.find_work()
        for stage_id in inputs_of(run):
            if isinstance(split, PartitionSplit) and shuffle == shuffle_id(self._plan.job_id, stage_id):
                spoilt = frozenset({split.partition})
                ended += [(run, one) for one in run.interrupt(partial(Running.reads, partitions=spoilt))]
                run.hold(running.task)
                self._lose(self[stage_id], spoilt)
                ended += self.find_work()
        return ended

    def find_work(self) -> Ended:
        """Set anew what each stage has to do, from the answer back to the sources, and line it up. Gives the attempts
        that nobody needs any more.
        """
        runs, ended = list(self), Ended()
        for run in reversed(runs):
            ended += [(run, one) for one in run.find_work(self._needed_of(run), self.table.lost)]
        for run in runs:
            # What was read before it was lost stays in the account; what is sent again is told again by every task.
            void = self._void.get(run.stage.stage_id, set())
            again = void & run.replayed
            self.receipts.lose(run.stage.stage_id, again)
            void -= again
            self.queue(run)
        return ended

    def _begin_anew(self, source: StageRun) -> Ended:
        """Nothing that the stage or its readers have done counts: another answer is coming, and two are never mixed."""
        ended: Ended = []
        for run in self:
            if run.started and self._reads_from(run, source):
                ended += [(run, running) for running in run.reset()]
                self.receipts.reset(run.stage.stage_id)
                self._void.get(run.stage.stage_id, set()).clear()
        return ended

    def queue(self, run: StageRun) -> None:
        """Line up anew the tasks of a stage that may run."""

        def prefer(task: int) -> int | None:
            if not isinstance(run.stage.output, HomeShuffle):
                return None
            count = self._num_partitions[run.stage.stage_id]
            return self.table.owners[home_partition(task, tasks=len(run.splits), num_partitions=count)]

        run.queue(self._agent_of, self.ready(run), prefer)

    def ready(self, run: StageRun) -> Callable[[Split], bool]:
        """Whether all is there that a task of a split of the stage reads, and nothing of it is being sent again."""
        missing = [self[stage_id].missing() for stage_id in inputs_of(run)]
        copies_missing = any(
            (lost := self[stage_id].missing()) is None or not lost.isdisjoint(self._copies_in_use(stage_id))
            for stage_id in run.stage.copied
        )
        if copies_missing:
            return lambda split: False
        return lambda split: (
            not isinstance(split, PartitionSplit)
            or all(partitions is not None and split.partition not in partitions for partitions in missing)
        )

    def _ranges_of(self, run: StageRun, ranges_wanted: int) -> Ranges | None:
        """Where a stage that is about to start cuts its rows, None where not by ranges."""
        output = run.stage.output
        if not isinstance(output, RangeShuffle):
            return None
        ranges = choose_ranges(
            output,
            [sample for stage_id in output.sampled_by for sample in self[stage_id].samples()],
            row_bytes=self.receipts.row_bytes(output.sampled_by),
            ranges_wanted=ranges_wanted,
            rule=self._range_rule,
        )
        self._num_partitions[run.stage.stage_id] = ranges.count
        self.receipts.narrow(run.stage.stage_id, ranges.count)
        return ranges

    def _lose(self, run: StageRun, partitions: frozenset[int], holder: int | None = None) -> None:
        if run.shuffles:
            count = self._num_partitions[run.stage.stage_id]
            here = frozenset(partition for partition in partitions if partition < count)
            if holder is None:
                run.lose(here)
            else:
                hand_over(run, holder, here)
            self._void[run.stage.stage_id] |= here

    def _needed_of(self, run: StageRun) -> frozenset[int] | None:
        """The partitions of the stage's shuffle that are still to be read, None for all."""
        if isinstance(run.stage.output, BroadcastShuffle):
            readers = [reader for reader in self if run.stage.stage_id in reader.stage.copied]
            in_use = any(not reader.started or reader.to_make() for reader in readers)
            return self._copies_in_use(run.stage.stage_id) if in_use else frozenset()
        readers = [reader for reader in self if run.stage.stage_id in inputs_of(reader)]
        if not all(reader.started for reader in readers):
            return None
        splits = (reader.splits[task] for reader in readers for task in reader.to_make())
        return frozenset(split.partition for split in splits if isinstance(split, PartitionSplit))

    def copies_for(self, agent: int, run: StageRun) -> tuple[ev.CopyToRead, ...]:
        found = []
        for stage_id in run.stage.copied:
            partition = self._copy_of(agent, stage_id)
            attempts = self[stage_id].attempts_for(partition)
            found.append(ev.CopyToRead(stage_id=stage_id, partition=partition, attempts=attempts))
        return tuple(found)

    def _copy_of(self, agent: int, stage_id: int) -> int:
        """Which copy the agent's tasks read: its own, or where it came too late to be given one that of another."""
        copies = range(self._num_partitions[stage_id])
        if agent in copies and self.table.owners[agent] == agent:
            return agent
        return next((copy for copy in copies if self.table.owners[copy] == copy), 0)

    def _end_readers_of_copies(self, run: StageRun, copies: frozenset[int]) -> Ended:
        """Attempts that have read one of the copies, which may be sent again, would be held to another account."""
        readers = {
            agent
            for agent in self.table.living
            if any(self._copy_of(agent, stage_id) in copies for stage_id in run.stage.copied)
        }
        return [(run, running) for running in run.interrupt(lambda one: one.agent in readers)]

    def _copies_in_use(self, stage_id: int) -> frozenset[int]:
        """The copies that tasks read; those of agents that are lost are nobody's."""
        return frozenset(self._copy_of(agent, stage_id) for agent in self.table.living)

    def _placed(self, split: Split) -> Split:
        """The client may have uploaded a piece of a table once more, to an agent that lives."""
        if not isinstance(split, TableSplit):
            return split
        pieces = self._plan.uploads[split.table_id]
        return replace(split, piece=next(piece for piece in pieces if piece.index == split.piece.index))

    def _reads_from(self, run: StageRun, source: StageRun) -> bool:
        return run is source or any(self._reads_from(self[stage_id], source) for stage_id in run.stage.reads)

    def _partitions_read(self, source: object) -> int | None:
        return self._num_partitions[source.stage_ids[0]] if isinstance(source, ShuffleInput) else None

    def _agent_of(self, split: Split) -> int | None:
        """Who must run it: a partition's owner, or the agent that was given a piece of an uploaded table."""
        if isinstance(split, PartitionSplit):
            owner = self.table.owners[split.partition]
            if split.share is None:
                return owner
            # The owner has the first share, the others have one after the other.
            living = [agent for agent in self.table.living if agent == owner or agent not in self.leavers]
            return living[(living.index(owner) + split.share.index) % len(living)]
        if not isinstance(split, TableSplit):
            return None
        address = split.piece.flight_address
        # Who came later, perhaps to the address of one that is gone, was given none.
        places = [index for index in range(self.founders) if self._agents[index].flight_address == address]
        holder = places[-1] if places else None
        if holder is not None and holder not in self.table.lost:
            return holder
        name = "the agent" if holder is None else f"agent {self._agents[holder].agent_id}"
        uploaded = split.piece.result is None
        raise PeerLost(
            f"{name} at {address}, which alone holds {split.piece}, takes no part in the job: it is gone or draining; "
            + ("run the job again" if uploaded else "persist the dataset again"),
            address=address,
            **({"upload": address} if uploaded else {}),
        )


def inputs_of(run: StageRun) -> tuple[int, ...]:
    """The stages whose shuffles the stage reads by partition."""
    return run.stage.input.stage_ids if isinstance(run.stage.input, ShuffleInput) else ()
