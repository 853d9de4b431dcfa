"""A cluster for a coordinator, in which agents die, freeze and are given up wrongly, and every row is known by itself.

Agents do what real ones do about epochs: they send by the table that they know, refuse what is of an older one, wait
for that of a newer one, and hold what was confirmed. A reader that is told to read what its agent does not hold fails
the test.
"""

from __future__ import annotations

import random
import zlib
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.coordinator import Coordinator
from sabot.agent.coordination.job_journal import KeptJournal, end_of
from sabot.agent.coordination.owner_table import OwnerTable
from sabot.dataflow.enough_rows import NO_ATTEMPT
from sabot.dataflow.ranges import HomeShuffle
from sabot.dataflow.splits import home_partition
from sabot.dataflow.stage import (
    BroadcastShuffle,
    FilesSplit,
    JobPlan,
    PartitionSplit,
    ResultOutput,
    RoundRobinShuffle,
    Shuffle,
    ShuffleInput,
    Split,
    Stage,
    StoredSplit,
    TableSplit,
    WriteOutput,
)
from sabot.errors import PeerLost, PeerRefused
from sabot.wire.agent_pb2 import PartitionSum, ReleasedSum, ResultPartition, RunTaskReply
from sabot.wire.failure import to_failure

from .job_world import key_sample, member

Row = tuple[str, int]
Sent = dict[int, list[Row]]


class Refused(Exception):
    """What a task of this world fails with."""

    def __init__(self, error: PeerLost | PeerRefused) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(slots=True)
class Agents:
    """`answer` does what a command says; what a dead agent is told is never answered."""

    plan: JobPlan
    coordinator: Coordinator
    dead: set[int] = field(default_factory=set)
    tables: dict[int, OwnerTable] = field(default_factory=dict)
    journals: dict[int, KeptJournal] = field(default_factory=dict)
    held: dict[tuple[int, int, int, int], Sent] = field(default_factory=dict)  # by agent, stage, task, attempt
    results: dict[tuple[int, int], list[Row]] = field(default_factory=dict)  # by agent and task
    files: dict[str, list[Row]] = field(default_factory=dict)
    fickle: bool = True  # whether rows that are dealt out in turn go elsewhere in another attempt
    skewed: bool = False  # whether half of the rows have one key
    check_copies: bool = True  # that every copy has all rows of its stage's files
    moved: int = 0  # partitions sent on by agents that leave, of each task
    sent_again: Counter[int] = field(default_factory=Counter)  # partitions sent by replays, by stage

    def answer(self, command: ev.Command) -> list[ev.Event]:
        if getattr(command, "agent", None) in self.dead:
            return []
        match command:
            case ev.OpenFolder():
                events: list[ev.Event] = [ev.FolderOpened()]
            case ev.AskToPublish():
                events = [ev.PublishGranted()]
            case ev.PublishFolder():
                events = [ev.FolderPublished()]
            case ev.Record():
                events = [event for agent in self.coordinator.living for event in self._record(agent)]
            case ev.CheckAgents():
                events = [*(lost(agent) for agent in sorted(self.dead)), ev.AgentsChecked()]
            case ev.Prepare(agent=agent, table=table):
                self.tables[agent] = table
                events = [ev.Prepared(agent=agent)]
            case ev.Reown(agent=agent, table=table):
                self.tables[agent] = max(table, self.tables[agent], key=lambda known: known.epoch)
                events = [ev.Reowned(agent=agent, epoch=table.epoch)]
            case ev.StartTask():
                events = [self._run(command)]
            case _:
                events = []
        return events

    def _record(self, agent: int) -> list[ev.Event]:
        update = None if agent in self.dead else self.coordinator.journal_update(agent)
        if update is None:
            return []
        assert self.journals.setdefault(agent, KeptJournal()).keep(update), "something before it is missing"
        return [ev.Recorded(agent=agent, mark=end_of(update))]

    def _run(self, command: ev.StartTask) -> ev.Event:
        which = {name: getattr(command, name) for name in ("agent", "stage_id", "task", "attempt")}
        try:
            return ev.TaskSucceeded(**which, reply=self._reply(command))
        except Refused as refused:
            sent_epoch = self.tables[command.agent].epoch if self._sends(command) else None
            return ev.TaskFailed(**which, failure=to_failure(refused.error), sent_epoch=sent_epoch)

    def _sends(self, command: ev.StartTask) -> bool:
        return isinstance(self.plan.stages[command.stage_id].output, Shuffle)

    def waits(self, command: ev.Command) -> bool:
        """Whether it is an attempt that would send to an agent which has yet to hear of the table."""
        if not isinstance(command, ev.StartTask) or command.agent in self.dead or not self._sends(command):
            return False
        table = self.tables[command.agent]
        return any(self.tables[owner].epoch < table.epoch for owner in {*table.owners} - self.dead)

    def _reply(self, command: ev.StartTask) -> RunTaskReply:
        stage, reply = self.plan.stages[command.stage_id], RunTaskReply()
        if isinstance(command.split, StoredSplit):
            self._send_on(command, command.split, reply)
            return reply
        rows = self._read(command, reply)
        self._read_copies(command, reply)
        reply.rows_out = len(rows)
        match stage.output:
            case ResultOutput():
                self.results[command.agent, command.task] = rows
                name = member(command.agent).agent_id
                reply.result.CopyFrom(ResultPartition(partition=command.task, rows=len(rows), agent_id=name))
            case WriteOutput():
                reply.written.add(path=f"{command.task}-{command.attempt}", rows=len(rows))
                self.files[reply.written[0].path] = rows
            case _:
                self._send(stage, command, rows, reply)
                if isinstance(stage.output, HomeShuffle):
                    reply.key_sample = key_sample(map(key_of, rows))
        return reply

    def _read(self, command: ev.StartTask, reply: RunTaskReply) -> list[Row]:
        if not isinstance(command.split, PartitionSplit):
            rows = source_rows(command.split)
            reply.rows_in = len(rows)
            return rows
        partition, share = command.split.partition, command.split.share
        owner = self._owner(command, partition) if share is not None else command.agent
        rows = []
        for side, (stage_id, attempts) in enumerate(command.inputs):
            got: list[Row] = []
            first, step = share.of_side(side) if share is not None else (0, 1)
            tasks = command.read_tasks or range(len(attempts))
            for task, attempt in list(zip(tasks, attempts, strict=True))[first::step]:
                if attempt == NO_ATTEMPT:
                    continue
                sent = self.held.get((owner, stage_id, task, attempt))
                assert sent is not None and partition in sent, f"{command} reads what {owner} does not hold"
                got += sent[partition]
            reply.released.append(ReleasedSum(stage_id=stage_id, sum=summed(partition, got)))
            reply.rows_in += len(got)
            # What a join would make of copies: each row once, whatever the share.
            rows += got if share is None or side == share.side or share.index == 0 else []
        return rows

    def _read_copies(self, command: ev.StartTask, reply: RunTaskReply) -> None:
        """Every task reads all rows of a stage that was broadcast, from its own agent where that has a copy."""
        for copy in command.copies:
            own = self.tables[command.agent].owners[copy.partition] == command.agent
            owner = command.agent if own else self._owner(command, copy.partition)
            got: list[Row] = []
            for task, attempt in enumerate(copy.attempts):
                sent = self.held.get((owner, copy.stage_id, task, attempt))
                assert sent is not None and copy.partition in sent, f"{command} reads what {owner} does not hold"
                got += sent[copy.partition]
            if self.check_copies:
                files = self.plan.stages[copy.stage_id].input.files  # type: ignore[union-attr]
                rows = ((file.path, row) for file in files for row in range(file.row_group_rows[0]))
                assert Counter(got) == Counter(rows)
            reply.copied.append(ReleasedSum(stage_id=copy.stage_id, sum=summed(copy.partition, got)))

    def _owner(self, command: ev.StartTask, partition: int) -> int:
        """Who owns the partition as far as the agent knows; Refused where it is dead, or the attempt is of the past."""
        table = self.tables[command.agent]
        owner = table.owners[partition]
        if owner in self.dead or table.epoch != command.epoch:
            raise Refused(PeerLost("broken off", address=member(owner).flight_address))
        return owner

    def _send(self, stage: Stage, command: ev.StartTask, rows: list[Row], reply: RunTaskReply) -> None:
        table, ranges = self.tables[command.agent], command.ranges
        count = ranges.count if ranges is not None else self.coordinator.num_partitions[stage.stage_id]
        reply.sent_epoch = table.epoch
        wanted = range(count) if command.partitions is None else command.partitions
        placed: Sent = {partition: [] for partition in wanted}
        if isinstance(stage.output, BroadcastShuffle):
            placed = dict.fromkeys(wanted, rows)
        for row in () if isinstance(stage.output, BroadcastShuffle) else rows:
            partition = placement(stage, row, command, count, fickle=self.fickle)
            if self.skewed and zlib.crc32(str(row).encode()) % 2:
                partition = 0
            reply.placement_digest += zlib.crc32(f"{row} in {partition}".encode())
            if partition in placed:
                placed[partition].append(row)
        self._place(command, placed)
        reply.sent.extend(summed(partition, placed[partition]) for partition in wanted)
        if command.partitions is not None:
            self.sent_again[stage.stage_id] += len(command.partitions)

    def _send_on(self, command: ev.StartTask, split: StoredSplit, reply: RunTaskReply) -> None:
        """What the task has sent to an agent that leaves goes to the new owners."""
        if self.tables[command.agent].epoch != command.epoch:
            raise Refused(PeerRefused("another epoch here"))
        placed: Sent = {}
        for attempt, partitions in split.sent:
            sent = self.held[command.agent, command.stage_id, command.task, attempt]
            placed |= {partition: sent[partition] for partition in partitions}
        assert placed.keys() == command.partitions
        self._place(command, placed)
        self.moved += len(placed)
        reply.sent.extend(summed(partition, rows) for partition, rows in placed.items())

    def _place(self, command: ev.StartTask, placed: Sent) -> None:
        """With the owners, by the table of the command's epoch."""
        table = self.tables[command.agent]
        for owner in sorted({table.owners[partition] for partition in placed}):
            if owner in self.dead:
                raise Refused(PeerLost("broken off", address=member(owner).flight_address))
            if self.tables[owner].epoch != table.epoch:
                raise Refused(PeerRefused("another epoch there"))
            mine = {partition: rows for partition, rows in placed.items() if table.owners[partition] == owner}
            self.held[owner, command.stage_id, command.task, command.attempt] = mine


def source_rows(split: Split) -> list[Row]:
    if isinstance(split, FilesSplit):
        return [(part.file.path, row) for part in split.parts for row in range(part.rows or 0)]
    assert isinstance(split, TableSplit)
    return [(f"piece {split.piece.index}", row) for row in range(split.piece.rows)]


def all_rows(plan: JobPlan, commands: list[ev.Command]) -> Counter[Row]:
    """The rows of the job's sources."""
    sources = {
        (command.stage_id, command.task): command.split
        for command in commands
        if isinstance(command, ev.StartTask)
        and not isinstance(plan.stages[command.stage_id].input, ShuffleInput)
        and not isinstance(plan.stages[command.stage_id].output, BroadcastShuffle)
        and not isinstance(command.split, StoredSplit)
    }
    return Counter(row for split in sources.values() for row in source_rows(split))


def key_of(row: Row) -> int:
    """By which rows are sorted."""
    return zlib.crc32(str(row).encode())


def placement(stage: Stage, row: Row, command: ev.StartTask, count: int, *, fickle: bool) -> int:
    """By hash, home or range always the same; dealt out in turn, it may be another one each time."""
    if isinstance(stage.output, HomeShuffle):
        return home_partition(command.task, tasks=command.tasks, num_partitions=count)
    if command.ranges is not None:
        bounds = pa.ipc.open_stream(command.ranges.boundaries).read_all()["k"].to_pylist()
        return bisect_right(bounds, key_of(row))
    salt = command.attempt if fickle and isinstance(stage.output, RoundRobinShuffle) else 0
    return zlib.crc32(f"{row} {salt}".encode()) % count


def summed(partition: int, rows: list[Row]) -> PartitionSum:
    content_sum = sum(zlib.crc32(str(row).encode()) for row in rows) % 2**64
    return PartitionSum(partition=partition, rows=len(rows), content_sum=content_sum)


def lost(agent: int) -> ev.AgentLost:
    error = PeerLost(f"agent agent-{agent} did not answer", agent=f"agent-{agent}")
    return ev.AgentLost(agent=agent, failure=to_failure(error))


@dataclass(slots=True, kw_only=True)
class Walk:
    """One life of a job in an order that `rng` chooses; agents from 1 on may die or be given up, `blows` of them."""

    agents: Agents
    rng: random.Random
    blows: int
    joins: int = 0
    told: list[ev.Command] = field(default_factory=list)
    waiting: list[ev.Command] = field(default_factory=list)
    events: list[ev.Event] = field(default_factory=list)
    seconds: float = 0.0

    def run(self, num_agents: int) -> list[ev.Command]:
        """Every command until the job's end; fails where the job neither goes on nor ends."""
        coordinator = self.agents.coordinator
        self._tell(ev.JobStarted())
        steps = 0
        while not coordinator.ended:
            steps += 1
            assert steps < 20_000, "the job does not come to an end"
            if self.rng.random() < 0.1:
                self.seconds += self.rng.choice((0.0, 1.0, 100.0))
                self._tell(ev.TimePassed(elapsed_s=self.seconds))
            elif self.rng.random() < 0.01:
                leaver = self.rng.randrange(num_agents)
                self._tell(ev.AgentDraining(agent=leaver, stays=leaver == 0))
            elif self.joins and self.rng.random() < 0.05:
                self.joins -= 1
                self._tell(ev.AgentJoined(member=member(num_agents)))
                num_agents += 1
            elif self.blows and self.rng.random() < 0.05:
                self._strike(self.rng.randrange(1, num_agents))
            elif self.events and self.rng.random() < 0.5:
                self._tell(self.events.pop(self.rng.randrange(len(self.events))))
            elif able := [one for one in self.waiting if not self.agents.waits(one)]:
                command = self.rng.choice(able)
                self.waiting.remove(command)
                self.events += self.agents.answer(command)
            elif self.events:
                self._tell(self.events.pop(0))
            else:
                quiet = sorted(self.agents.dead & set(coordinator.living))
                assert quiet, "the job neither goes on nor ends"
                self._tell(lost(quiet[0]))
        return self.told

    def _strike(self, agent: int) -> None:
        """Kill it, or take it for dead, which may come to the coordinator's ears now or later."""
        self.blows -= 1
        if self.rng.random() < 0.7:
            self.agents.dead.add(agent)
        if agent not in self.agents.dead or self.rng.random() < 0.5:
            self.events.append(lost(agent))

    def _tell(self, event: ev.Event) -> None:
        commands = self.agents.coordinator.handle(event)
        self.told += commands
        for command in commands:
            if isinstance(command, ev.CancelTask) and self.rng.random() < 0.5:
                self.waiting = [one for one in self.waiting if not _is_attempt(one, command)]
        self.waiting += [command for command in commands if not isinstance(command, ev.CancelTask)]


def _is_attempt(command: ev.Command, cancel: ev.CancelTask) -> bool:
    return isinstance(command, ev.StartTask) and (command.stage_id, command.task, command.attempt) == (
        cancel.stage_id,
        cancel.task,
        cancel.attempt,
    )
