"""One attempt of a task, as sabot.agent.tasks.task_runner and the native AttemptSender carry it out: it reads, sends
what it has read chunk by chunk, ends with a manifest to every owner and waits until all have confirmed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from sabot.agent.coordination import job_events as ev
from sabot.agent.tasks.file_output import FileWriter
from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.dataflow.ranges import HomeShuffle
from sabot.dataflow.stage import Shuffle, StoredSplit, WriteOutput, shuffle_id
from sabot.errors import JobCancelled, PeerLost, SabotError
from sabot.native._native import HeaderFields, chunk_mark, encode_header
from sabot.shuffle.attempts import owners_of_replay
from sabot.wire.agent_pb2 import PartitionSum, ResultPartition, RunTaskReply
from sabot.wire.failure import to_failure

from .headers import decode_header
from .jobs import MARK, SUM_MASK, Placing, Rows, batch_of, boundaries_of, calls_function, content, sample_of
from .memory import bytes_of
from .reading import Reading

if TYPE_CHECKING:
    from .agent import Agent, HeldJob

WAIT_S_MAX = 300.0
ROWS_AT_ONCE = 7  # gathered for one scatter


class _Owner:
    """What was sent to one owner."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.chunks = 0
        self.marks = 0
        self.sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        self.confirmed = False


class _InNoSlot:
    """Calls what a task would have a slot do, at once."""

    def call_to_end(self, function: Callable[[], Any]) -> Any:
        return function()


class Task:
    """`answer` gets the RunTaskReply, once; none after a cancel."""

    def __init__(
        self, agent: Agent, held: HeldJob, command: ev.StartTask, answer: Callable[[RunTaskReply], None]
    ) -> None:
        self.agent, self.held, self.command = agent, held, command
        self.stage = held.plan.stages[command.stage_id]
        self._placing = Placing(
            stage=self.stage,
            num_partitions=held.num_partitions.get(command.stage_id, 0),
            task=command.task,
            tasks=command.tasks,
            boundaries=boundaries_of(command.ranges),
        )
        self._answer = answer
        self.reply = RunTaskReply()
        self.ended = False
        self._writer: FileWriter | None = None
        self.number = agent.world.network.next_number()
        self._placed: list[int] = []  # the owner of each partition, as an index into those that must confirm
        self._owners: list[_Owner] = []
        self._sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        self._manifests_sent = False
        self._sent_epoch: int | None = None  # of the table by which it sends
        self._name = f"{command.stage_id}.{command.task}#{command.attempt}"
        held.tasks.add(self)
        agent.world.happen("task begun", agent.place, "task %s", self._name)
        pace = agent.world.pace
        self._slowness = pace.factor(agent.place)
        takes_s = agent.world.rng.uniform(0.05 * pace.work_s, pace.work_s) * self._slowness
        if agent.world.network.strikes(agent.world.odds.slow_task):
            agent.world.fault("slow task", "%s on agent-%s", self._name, agent.place)
            takes_s = agent.world.rng.uniform(0.5, 6.0)
        self._works_s = takes_s / 2  # on what it has read
        agent.later(takes_s / 2, self._read)

    def __str__(self) -> str:
        return self._name

    def cancel(self) -> None:
        self.end(JobCancelled(f"job {self.held.plan.job_id} was cancelled"))

    def reowned(self, epoch: int) -> None:
        """There is a new owner table: what has been sent by an older one does not count."""
        if self._sent_epoch is not None and self._sent_epoch < epoch and self.agent.world.guards.check_epochs:
            self.cancel()

    def end(self, error: SabotError | None = None) -> None:
        if self.ended:
            return
        self.ended = True
        if error is not None and self._writer is not None:
            self._writer.abort()
        self.held.tasks.discard(self)
        reply = self.reply if error is None else RunTaskReply(failure=to_failure(error), sent_epoch=self._sent_epoch)
        if error is None:
            self.agent.world.checks.task_done(self)
            self.agent.world.happen("task done", self.agent.place, "task %s", self._name)
        else:
            self.agent.world.say("task", "%s on %s fails: %s", self._name, self.agent.member.agent_id, error)
        self._answer(reply)

    def owner_of(self, partition: int) -> str:
        """The address to which the partition was sent."""
        return self._owners[self._placed[partition]].address

    @property
    def owners(self) -> list[str]:
        """The addresses of those to whom it sends."""
        return [owner.address for owner in self._owners]

    @property
    def sums(self) -> dict[int, list[int]]:
        """Rows and content sum that were sent, by partition."""
        return self._sums

    def acknowledged(self, address: str, header: bytes, error: SabotError | None) -> None:
        if error is not None:
            self.end(error)
            return
        self.agent.world.happen("chunk acknowledged", self.agent.place, "by %s", address)
        if decode_header(header).manifest:
            for owner in self._owners:
                owner.confirmed = owner.confirmed or owner.address == address
            self._settle()

    def undelivered(self, error: SabotError) -> None:
        self.end(error)

    def _read(self) -> None:
        if self.ended:
            return
        split = self.command.split
        try:
            if isinstance(split, StoredSplit):
                self._send_on(split)
            else:
                Reading(self, self._work_on).begin()
        except SabotError as error:
            self.end(error)

    def _work_on(self, rows: Rows) -> None:
        """All rows of the split are read."""

        def have() -> None:
            if self.ended:
                return
            try:
                self._have(rows)
            except SabotError as error:
                self.end(error)

        self.agent.later(self._works_s, have)

    def _have(self, rows: Rows) -> None:
        """The stage's steps are done; then its output."""
        self.reply.rows_out = len(rows)
        self.agent.world.checks.task_read(self.held.plan.job_id, self.command, rows)
        if calls_function(self.stage):
            mark = self.agent.world.rng.randrange(1000) * MARK
            rows = tuple(row % MARK + mark for row in rows)
            if isinstance(self.stage.output, Shuffle):
                placed = [checksum_of((row, *self._placing.partitions_of(row))) for row in rows]
                self.reply.placement_digest = sum(placed) & SUM_MASK
        if isinstance(self.stage.output, HomeShuffle):
            self.reply.key_sample = sample_of(rows)
        if isinstance(self.stage.output, Shuffle):
            self._open()
            self._send(rows, 0)
        elif isinstance(self.stage.output, WriteOutput):
            self._write(rows, self.stage.output)
        else:
            self._publish(rows)

    def _send_on(self, split: StoredSplit) -> None:
        """What was sent to this agent, as it is."""
        rows: list[int] = []
        for attempt, partitions in split.sent:
            for partition in sorted(partitions):
                rows += self.agent.stored(self.held, self.stage.stage_id, partition, [(self.command.task, attempt)])[0]
        self.reply.rows_in = self.reply.rows_out = len(rows)
        self._open()
        self._send(tuple(rows), 0)

    def _open(self) -> None:
        """Finds who must confirm, by the table of now, as ShuffleTransport.attempt_writer does."""
        held, table = self.held, self.held.table
        self.reply.sent_epoch = self._sent_epoch = table.epoch
        owner_of = table.owners[: held.num_partitions[self.stage.stage_id]]
        addresses = [agent.flight_address for agent in held.agents]
        owners, self._placed = owners_of_replay(addresses, owner_of, self.command.partitions)
        self._owners = [_Owner(address) for address in owners]
        self.agent.later(WAIT_S_MAX, self._waited_too_long, deadline=True)

    def _publish(self, rows: Rows) -> None:
        self.agent.publish(self.held, self.command.task, self.command.attempt, rows)
        self.reply.result.CopyFrom(
            ResultPartition(
                partition=self.command.task,
                ticket=str(self.command.attempt),
                flight_address=self.agent.member.flight_address,
                rows=len(rows),
                agent_id=self.agent.member.agent_id,
            )
        )
        self.end()

    def _write(self, rows: Rows, output: WriteOutput) -> None:
        """With the real writer of files, in two steps of time."""
        command, schema = self.command, self.stage.schema
        self._writer = writer = FileWriter(
            output,
            cast(SlotCalls, _InNoSlot()),
            schema,
            job_id=self.held.plan.job_id,
            task=command.task,
            attempt=command.attempt,
            epoch=command.epoch,
        )

        def write() -> None:
            if self.ended:
                return
            try:
                writer.write([] if not rows else [batch_of(rows, schema)])
                writer.finish(self.reply)
                self.end()
            except SabotError as error:
                self.end(error)

        self.agent.later(self.agent.world.rng.uniform(0.0, 0.01) * self._slowness, write)

    def _send(self, rows: Rows, start: int) -> None:
        """One scatter, then the next a little later, then the manifests."""
        if self.ended:
            return
        if start >= len(rows):
            self._send_manifests()
            return
        end = start + max(1, ROWS_AT_ONCE // self._placing.copies)
        parts = {} if self.agent.memory.ledger.above_high_water else self._scatter(rows[start:end])
        if self.agent.memory.ledger.above_high_water or not self._allocate(parts):
            self.agent.memory.when_freed(lambda: None)  # sources pause, and room is wanted
            self.agent.later(0.01, lambda: self._send(rows, start))
            return
        for owner, by_partition in sorted(parts.items()):
            self._send_chunk(owner, by_partition)
        self.agent.later(self.agent.world.rng.uniform(0.0, 0.005) * self._slowness, lambda: self._send(rows, end))

    def _scatter(self, rows: Rows) -> dict[int, dict[int, list[int]]]:
        """By owner and partition."""
        parts: dict[int, dict[int, list[int]]] = {}
        for row in rows:
            for partition in self._placing.partitions_of(row):
                owner = self._placed[partition]
                if owner < len(self._owners):  # else a replay leaves it out
                    parts.setdefault(owner, {}).setdefault(partition, []).append(row)
        return parts

    def _allocate(self, parts: dict[int, dict[int, list[int]]]) -> bool:
        """Room for all chunks of a scatter, or for none."""
        memory, had = self.agent.memory, []
        for place, by_partition in parts.items():
            account = self._account(place)
            size = bytes_of(tuple(row for rows in by_partition.values() for row in rows))
            if not memory.allocate(account, size):
                for account, size in had:
                    memory.free(account, size)
                return False
            had.append((account, size))
        return True

    def _account(self, place: int) -> str:
        return "store" if self._owners[place].address == self.agent.address else "outbox"

    def _send_chunk(self, place: int, by_partition: dict[int, list[int]]) -> None:
        owner, stage_id = self._owners[place], self.stage.stage_id
        extents = []
        for partition, rows in sorted(by_partition.items()):
            content_sum = sum(content(stage_id, row)[1] for row in rows) & SUM_MASK
            extents.append((partition, len(rows), content_sum))
            for sums in (owner.sums[partition], self._sums[partition]):
                sums[0] += len(rows)
                sums[1] = (sums[1] + content_sum) & SUM_MASK
        chunk = tuple(row for _, rows in sorted(by_partition.items()) for row in rows)
        checksum = checksum_of(chunk)
        header = self._header(False, owner.chunks, checksum, tuple(extents), bytes_of(chunk))
        owner.marks = (owner.marks + chunk_mark(owner.chunks, checksum)) & SUM_MASK
        owner.chunks += 1
        self._hand_over(place, header, chunk)

    def _send_manifests(self) -> None:
        self._manifests_sent = True
        for place, owner in enumerate(self._owners):
            extents = tuple((partition, rows, total) for partition, (rows, total) in sorted(owner.sums.items()))
            self._hand_over(place, self._header(True, owner.chunks, owner.marks, extents), ())
            if self.ended:
                return
        self._settle()

    def _hand_over(self, place: int, header: bytes, rows: Rows) -> None:
        address = self._owners[place].address
        if address != self.agent.address:
            self.agent.outbox(self._shuffle, address).add(header, rows, self)
            return
        try:
            repeated = self.agent.store(header, rows)
            if repeated and rows:
                self.agent.memory.free("store", bytes_of(rows))
        except SabotError as error:
            if rows:
                self.agent.memory.free("store", bytes_of(rows))
            self.end(error)
            return
        if decode_header(header).manifest:
            self._owners[place].confirmed = True

    def _header(
        self,
        manifest: bool,
        sequence: int,
        checksum: int,
        extents: tuple[tuple[int, int, int], ...],
        count: int = 0,
    ) -> bytes:
        return encode_header(
            HeaderFields(
                manifest=manifest,
                shuffle_id=self._shuffle,
                incarnation=self.agent.member.incarnation,
                epoch=self._sent_epoch,
                task=self.command.task,
                attempt=self.command.attempt,
                sequence=sequence,
                checksum=checksum,
                bytes=count,
                extents=extents,
            )
        )

    @property
    def _shuffle(self) -> str:
        return shuffle_id(self.held.plan.job_id, self.stage.stage_id)

    def _settle(self) -> None:
        if self.ended or not self._manifests_sent or not all(owner.confirmed for owner in self._owners):
            return
        for partition, (rows, content_sum) in sorted(self._sums.items()):
            self.reply.sent.append(PartitionSum(partition=partition, rows=rows, content_sum=content_sum))
        self.end()

    def _waited_too_long(self) -> None:
        if not self.ended:
            waited_for = ", ".join(owner.address for owner in self._owners if not owner.confirmed)
            self.end(PeerLost(f"Shuffle {self._shuffle} was not confirmed by {waited_for}.", address=waited_for))


def checksum_of(rows: Rows) -> int:
    return hash(rows) & SUM_MASK
