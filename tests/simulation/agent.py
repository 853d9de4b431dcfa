"""One life of an agent, as thin as possible: real bookkeeping, send windows and coordinators, and what carries their
messages. It answers the calls that sabot.agent.job_state and the Flight server answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sabot.agent import job_events as ev
from sabot.dataflow.stage import HashShuffle, JobPlan, shuffle_id
from sabot.errors import JobCancelled, PeerRefused, SabotError, ShuffleIntegrityError
from sabot.native._native import BookkeepingMachine, decode_header, encode_ack
from sabot.wire.member import Member

from .clock import Process, Timer
from .jobs import Rows, content, partition_of
from .network import Stream
from .outbox import Outbox
from .task import SUM_MASK, Task, checksum_of
from .watch import Watch

if TYPE_CHECKING:
    from .cluster import Cluster

OPEN_WAIT_S = 10.0


class HeldShuffle:
    """A shuffle that is open here: what is stored of it, and the machine that judges what comes."""

    def __init__(self, book: BookkeepingMachine) -> None:
        self.book = book
        self.chunks: list[tuple[Any, Rows]] = []  # header fields and rows


class HeldJob:
    """A prepared job."""

    def __init__(self, plan: JobPlan, num_partitions: dict[int, int], owners: list[Member]) -> None:
        self.plan = plan
        self.num_partitions = num_partitions
        self.owners = owners
        self.tasks: set[Task] = set()
        self.watch: Watch | None = None

    def owner_of(self, partition: int) -> int:
        return partition % len(self.owners)


class Agent:
    """Lives in `place` until it crashes; its successor there has the same agent_id and address."""

    def __init__(self, world: Cluster, place: int, member: Member) -> None:
        self.world = world
        self.place = place
        self.member = member
        self.address = member.flight_address
        self.process = Process(f"{member.agent_id}:{member.incarnation}")
        self.jobs: dict[str, HeldJob] = {}
        self.ended: set[str] = set()
        self.shuffles: dict[str, HeldShuffle] = {}
        self.outboxes: dict[tuple[str, str], Outbox] = {}
        self.results: dict[tuple[str, int], Rows] = {}
        self._waiting: dict[str, list[tuple[Stream, Timer]]] = {}  # streams whose shuffle is not open yet

    def later(self, delay_s: float, act: Callable[[], None], *, deadline: bool = False) -> Timer:
        return self.world.clock.after(delay_s, self.process, act, deadline=deadline)

    # Calls

    def on_call(self, method: str, argument: Any, answer: Callable[[Any], None]) -> Callable[[], None] | None:
        """Carries a call out; gives what ends it early, where something does."""
        match method:
            case "ping":
                answer(self.member.incarnation)
            case "prepare":
                self._prepare(*argument, answer=answer)
            case "run_task":
                return self._run_task(*argument, answer=answer)
            case "end_job":
                self.end_job(*argument)
                answer(None)
            case "fetch":
                rows = self.results.get(argument)
                answer(PeerRefused(f"{self.address} has nothing published as {argument}") if rows is None else rows)
        return None

    def _prepare(
        self,
        plan: JobPlan,
        num_partitions: dict[int, int],
        owners: list[Member],
        coordinator: Member,
        answer: Callable[[Any], None],
    ) -> None:
        if plan.job_id in self.ended:
            answer(JobCancelled(f"job {plan.job_id} has ended on agent {self.member.agent_id}"))
            return
        held = self.jobs.get(plan.job_id)
        if held is None:
            held = self.jobs[plan.job_id] = HeldJob(plan, num_partitions, owners)
            self._open_shuffles(held)
            if coordinator.identity != self.member.identity:
                held.watch = Watch(self, coordinator, lambda _: self._end_without(plan.job_id))
        self.world.happen("prepared", self.place, "job %s", plan.job_id)
        answer(None)

    def _open_shuffles(self, held: HeldJob) -> None:
        me = next(i for i, owner in enumerate(held.owners) if owner.flight_address == self.address)
        for stage in held.plan.stages:
            if isinstance(stage.output, HashShuffle):
                name = shuffle_id(held.plan.job_id, stage.stage_id)
                book = BookkeepingMachine(
                    shuffle_id=name,
                    agent=self.address,
                    num_partitions=held.num_partitions[stage.stage_id],
                    owner_count=len(held.owners),
                    my_owner=me,
                    dedupe=self.world.guards.dedupe,
                    check_manifests=self.world.guards.check_manifests,
                )
                self.shuffles[name] = HeldShuffle(book)
                for stream, deadline in self._waiting.pop(name, []):
                    deadline.cancel()
                    self._go_on(stream)

    def _run_task(self, job_id: str, command: ev.StartTask, answer: Callable[[Any], None]) -> Callable[[], None] | None:
        held = self.jobs.get(job_id)
        if held is None:
            kind = JobCancelled if job_id in self.ended else PeerRefused
            answer(kind(f"agent {self.member.agent_id} knows no job {job_id}"))
            return None
        return Task(self, held, command, answer).cancel

    def _end_without(self, job_id: str) -> None:
        """The job's coordinator is lost."""
        self.world.checks.ended_without_coordinator(job_id)
        self.end_job(job_id, keep_result=False)

    def end_job(self, job_id: str, keep_result: bool) -> None:
        held = self.jobs.pop(job_id, None)
        self.ended.add(job_id)
        if held is not None:
            if held.watch is not None:
                held.watch.stop()
            for task in sorted(held.tasks, key=lambda task: task.number):
                task.cancel()
        below = f"{job_id}/"
        for key in [key for key in self.outboxes if key[0].startswith(below)]:
            self.outboxes.pop(key).stop()
        for name in [name for name in self.shuffles if name.startswith(below)]:
            del self.shuffles[name]
        for name in [name for name in self._waiting if name.startswith(below)]:
            for stream, deadline in self._waiting.pop(name):
                deadline.cancel()
                self._go_on(stream)
        if not keep_result:
            for result in [result for result in self.results if result[0] == job_id]:
                del self.results[result]

    # Rows

    def outbox(self, shuffle: str, address: str) -> Outbox:
        return self.outboxes.setdefault((shuffle, address), Outbox(self, address))

    def publish(self, held: HeldJob, partition: int, rows: Rows) -> None:
        self.results[held.plan.job_id, partition] = rows

    def store(self, header: bytes, rows: Rows) -> bool:
        """Whether it was there already; raises what it is refused with."""
        fields = decode_header(header)
        shuffle = self.shuffles.get(fields.shuffle_id)
        if shuffle is None:
            raise PeerRefused(f"Shuffle {fields.shuffle_id} has ended or is not known on {self.address}.")
        repeated = shuffle.book.offer(header, len(rows))
        what = "task %s#%s sequence %s"
        if fields.manifest:
            self.world.happen("manifest confirmed", self.place, what, fields.task, fields.attempt, fields.sequence)
        elif not repeated:
            if self.world.rng.random() < self.world.odds.rotten_chunk:
                self.world.fault("rotten chunk", "in the memory of %s", self.member.agent_id)
                rows = (*rows[:-1], rows[-1] ^ (1 << self.world.rng.randrange(20)))
            shuffle.chunks.append((fields, rows))
            self.world.happen("chunk stored", self.place, what, fields.task, fields.attempt, fields.sequence)
        return repeated

    def take(self, held: HeldJob, stage_id: int, partition: int, attempts: tuple[int, ...]) -> tuple[list[int], int]:
        """The audited rows of a partition and their content sum, as ChunkStore and AuditPartition give them."""
        name = shuffle_id(held.plan.job_id, stage_id)
        shuffle = self.shuffles.get(name)
        if shuffle is None:
            raise PeerRefused(f"Shuffle {name} has ended or is not known on {self.address}.")
        wanted = list(enumerate(attempts))
        promised = shuffle.book.promised(partition, wanted)
        rows: list[int] = []
        for fields, chunk in shuffle.chunks:
            start = 0
            for extent, count, _ in fields.extents:
                if extent == partition and (fields.task, fields.attempt) in wanted:
                    rows += chunk[start : start + count]
                start += count
        found = (len(rows), sum(content(stage_id, row)[1] for row in rows) & SUM_MASK)
        strays = any(partition_of(stage_id, row, held.num_partitions[stage_id]) != partition for row in rows)
        if (found != promised or strays) and self.world.guards.audit_readers:
            raise ShuffleIntegrityError(
                f"partition {partition} of shuffle {name} has {found} where {promised} were sent"
            )
        self.world.checks.partition_read(held, stage_id, partition, attempts, rows)
        self.world.happen("partition read", self.place, "partition %s of %s", partition, name)
        return rows, found[1]

    # Streams

    def on_message(self, stream: Stream) -> None:
        """The handler's thread of one stream: one message after the other, in order."""
        stream.busy = True
        header, _ = stream.inbox[0]
        name = decode_header(header).shuffle_id
        if name in self.shuffles or name.partition("/")[0] in self.ended:
            self._go_on(stream)
        else:
            deadline = self.later(OPEN_WAIT_S, lambda: self._waited_too_long(name, stream), deadline=True)
            self._waiting.setdefault(name, []).append((stream, deadline))

    def _waited_too_long(self, name: str, stream: Stream) -> None:
        self._waiting[name] = [entry for entry in self._waiting[name] if entry[0] is not stream]
        self._go_on(stream)

    def _go_on(self, stream: Stream) -> None:
        """Takes the stream's first message, whose shuffle is open or will not be."""
        header, rows = stream.inbox.popleft()
        fields = decode_header(header)
        try:
            damaged = not fields.manifest and checksum_of(rows) != fields.checksum
            if damaged and self.world.guards.verify_checksums:
                raise ShuffleIntegrityError(
                    f"Chunk {fields.sequence} was changed on its way: its checksum does not fit"
                )
            ack = encode_ack(header, repeated=self.store(header, rows))
        except SabotError as error:
            ack = encode_ack(header, error=error)
        stream.acknowledge(ack)
        stream.busy = False
        if stream.inbox:
            self.later(0.0, lambda: self.on_message(stream) if stream.inbox and not stream.busy else None)


def new_member(place: int, rng: random.Random) -> Member:
    return Member(
        agent_id=f"agent-{place}",
        incarnation=rng.getrandbits(64),
        control_address=f"10.0.0.{place}:8815",
        flight_address=f"10.0.0.{place}:8816",
        http_address=f"10.0.0.{place}:8817",
        slots=rng.randint(1, 2),
    )
