"""One life of an agent, as thin as possible: real bookkeeping, send windows and coordinators, and what carries their
messages. It answers the calls that sabot.agent.jobs.job_state and the Flight server answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.takeover import Identity
from sabot.dataflow.stage import Shuffle, shuffle_id
from sabot.errors import JobTakenOver, LimitReached, PeerRefused, SabotError, ShuffleIntegrityError
from sabot.native._native import BookkeepingMachine, HeaderFields, encode_ack
from sabot.wire.member import Member

from .clock import Process, Timer
from .driver import Driver
from .headers import decode_header
from .held_jobs import HeldJob, HeldJobs
from .jobs import SUM_MASK, Attempts, Placing, Rows, content
from .memory import Memory, bytes_of
from .network import OPENING, REQUEST, Stream
from .outbox import Outbox
from .stored import HeldShuffle, StoredChunk
from .task import Task, checksum_of

if TYPE_CHECKING:
    from .cluster import Cluster

OPEN_WAIT_S = 10.0


class Agent:
    """Lives in `place` until it crashes; its successor there has the same agent_id and address."""

    def __init__(self, world: Cluster, place: int, member: Member) -> None:
        self.world = world
        self.place = place
        self.member = member
        self.address = member.flight_address
        self.memory = Memory(self, *world.bytes_max)
        self.process = Process(f"{member.agent_id}:{member.incarnation}")
        self.held = HeldJobs(self)
        self.jobs, self.ended = self.held.jobs, self.held.ended
        self.shuffles: dict[str, HeldShuffle] = {}
        self.outboxes: dict[tuple[str, str], Outbox] = {}
        self.results: dict[tuple[str, int, int], Rows] = {}  # by job, partition and attempt
        self.draining = False
        self.drivers: dict[str, Driver] = {}  # of the jobs that it coordinates, until all have been told of the end
        self.keepers: dict[str, set[tuple[str, int]]] = {}  # of their results
        self._streams_ended: set[tuple[str, int]] = set()  # of clients, before their jobs came
        self._waiting: dict[str, list[tuple[Stream, Timer]]] = {}  # streams whose shuffle is not open yet

    def later(self, delay_s: float, act: Callable[[], None], *, deadline: bool = False) -> Timer:
        return self.world.clock.after(delay_s, self.process, act, deadline=deadline)

    # Calls

    def on_call(self, method: str, argument: Any, answer: Callable[[Any], None]) -> Callable[[], None] | None:
        """Carries a call out; gives what ends it early, where something does."""
        match method:
            case "ping":
                answer(self.member.incarnation)
            case "prepare" | "reown" | "record":
                self.held.on_call(method, argument, answer)
            case "run_task":
                return self._run_task(*argument, answer=answer)
            case "take_over":
                try:
                    answer(self.held.take_over(*argument))
                except SabotError as error:
                    answer(error)
            case "submit" | "confirm" | "stream ended" | "cancel job" | "grant publish":
                answer(self._on_client(method, argument))
            case "check_job":
                try:
                    answer(self._check_job(*argument))
                except SabotError as error:
                    answer(error)
            case "end_job":
                job_id, keep_result, epoch = argument
                try:
                    self.held.fence.admit(job_id, epoch)
                    answer(self.end_job(job_id, keep_result))
                except SabotError as error:
                    answer(error)
            case "share":
                self._share(*argument, answer=answer)
            case "fetch":
                rows = self.results.get(argument)
                answer(PeerRefused(f"{self.address} has nothing published as {argument}") if rows is None else rows)
        return None

    def _check_job(self, job_id: str, identity: Identity, meant: Member, epoch: int) -> tuple[bool, bool]:
        """Whether the agent that asks has a part in a job that this one coordinates, and else is to keep its result."""
        if meant.identity != self.member.identity:
            raise PeerRefused(f"agent {meant.agent_id} was restarted, and has nothing of any job")
        driver = self.drivers.get(job_id)
        if driver is None:
            self.held.fence.admit(job_id, epoch)
        takes_part = driver is not None and identity in driver.identities
        return takes_part, identity in self.keepers.get(job_id, set())

    def _on_client(self, method: str, argument: Any) -> JobTakenOver | None:
        """A client submits a job, or says something to its coordinator of an epoch."""
        if method == "submit":
            plan, client, epoch, members = argument
            if (plan.job_id, epoch) in self._streams_ended:
                return None
            driver = self.drivers.get(plan.job_id)
            if driver is not None and driver.epoch < epoch:
                driver.drop()
            if driver is None or driver.epoch < epoch:
                self.drivers[plan.job_id] = Driver(self, plan, client, epoch=epoch, members=members)
            return None
        job_id, epoch = argument
        driver = self.drivers.get(job_id)
        if driver is None or driver.epoch != epoch:
            if method == "stream ended":
                self._streams_ended.add((job_id, epoch))
            return JobTakenOver(f"job {job_id} is not coordinated here by the table of epoch {epoch}")
        match method:
            case "grant publish":
                driver.post(ev.PublishGranted())
            case "confirm":
                driver.confirm()
            case "stream ended":
                driver.outlive_client()
            case "cancel job":
                driver.cancel()
        return None

    def open_shuffles(self, held: HeldJob) -> None:
        me = held.agents.index(self.member)
        for stage in held.plan.stages:
            if isinstance(stage.output, Shuffle):
                name = shuffle_id(held.plan.job_id, stage.stage_id)
                book = BookkeepingMachine(
                    shuffle_id=name,
                    agent=self.address,
                    num_partitions=held.num_partitions[stage.stage_id],
                    owner_count=len(held.agents),
                    my_owner=me,
                    owner_of=held.table.owners,
                    dedupe=self.world.guards.dedupe,
                    check_manifests=self.world.guards.check_manifests,
                    check_epochs=self.world.guards.check_epochs,
                )
                given_up = [held.agents[agent].incarnation for agent in held.table.lost]
                book.reown(held.table.epoch, held.table.owners, given_up)
                self.shuffles[name] = HeldShuffle(book)
                self.look_again(name)

    def _run_task(self, job_id: str, command: ev.StartTask, answer: Callable[[Any], None]) -> Callable[[], None] | None:
        def ended(reply: Any) -> None:
            try:
                self.held.fence.admit(job_id, command.epoch)
            except SabotError as error:
                reply = error
            answer(reply)

        try:
            self.held.fence.admit(job_id, command.epoch)
            return Task(self, self.held.get(job_id), command, ended).cancel
        except SabotError as error:
            answer(error)
            return None

    def _share(
        self, job_id: str, stage_id: int, partition: int, attempts: Attempts, answer: Callable[[Any], None]
    ) -> None:
        """Another agent reads a partition that this one owns."""
        try:
            answer(self.take(self.held.get(job_id), stage_id, partition, attempts))
        except SabotError as error:
            answer(error)

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
            self.memory.forget(self.shuffles.pop(name))
        for name in [name for name in self._waiting if name.startswith(below)]:
            for stream, deadline in self._waiting.pop(name):
                deadline.cancel()
                self._go_on(stream)
        if not keep_result:
            for result in [result for result in self.results if result[0] == job_id]:
                del self.results[result]

    # Rows

    def outbox(self, shuffle: str, address: str) -> Outbox:
        """One that has failed stays so for its attempts; others may find the peer again."""
        outbox = self.outboxes.get((shuffle, address))
        if outbox is None or outbox.failed:
            outbox = self.outboxes[shuffle, address] = Outbox(self, address, self.world.streams_per_peer)
        return outbox

    def publish(self, held: HeldJob, partition: int, attempt: int, rows: Rows) -> None:
        self.results[held.plan.job_id, partition, attempt] = rows

    def store(self, header: bytes, rows: Rows) -> bool:
        """Whether it was there already; raises what it is refused with. The rows' bytes are the store's already."""
        fields = decode_header(header)
        shuffle = self.shuffles.get(fields.shuffle_id)
        if shuffle is None:
            raise PeerRefused(f"Shuffle {fields.shuffle_id} has ended or is not known on {self.address}.")
        if shuffle.failure is not None:
            raise shuffle.failure
        repeated = shuffle.book.offer(header, len(rows))
        what = "task %s#%s sequence %s"
        if fields.manifest:
            self.world.happen("manifest confirmed", self.place, what, fields.task, fields.attempt, fields.sequence)
        elif not repeated:
            if self.world.network.strikes(self.world.odds.rotten_chunk):
                self.world.fault("rotten chunk", "in the memory of %s", self.member.agent_id)
                rows = (*rows[:-1], rows[-1] ^ (1 << self.world.rng.randrange(20)))
            shuffle.chunks.append(StoredChunk(fields, rows))
            self.world.checks.stored(self.jobs[fields.shuffle_id.partition("/")[0]], fields)
            self.world.happen("chunk stored", self.place, what, fields.task, fields.attempt, fields.sequence)
        return repeated

    def take(self, held: HeldJob, stage_id: int, partition: int, wanted: Attempts) -> tuple[list[int], int]:
        """The audited rows of a partition, which must be all of it, and their content sum."""
        rows, content_sum = self.stored(held, stage_id, partition, wanted)
        self.world.checks.partition_read(held, stage_id, partition, wanted, rows)
        self.world.happen("partition read", self.place, "partition %s of stage %s", partition, stage_id)
        return rows, content_sum

    def stored(self, held: HeldJob, stage_id: int, partition: int, wanted: Attempts) -> tuple[list[int], int]:
        """What attempts sent to a partition, and its content sum, as ChunkStore and AuditPartition give them."""
        name = shuffle_id(held.plan.job_id, stage_id)
        shuffle = self.shuffles.get(name)
        if shuffle is None:
            raise PeerRefused(f"Shuffle {name} has ended or is not known on {self.address}.")
        if shuffle.failure is not None:
            raise shuffle.failure
        promised = shuffle.book.promised(partition, wanted)
        rows: list[int] = []
        attempts = set(wanted)
        for chunk in shuffle.chunks:
            if chunk.attempt not in attempts:
                continue
            if self.memory.disk_failed and not chunk.in_memory:
                raise ShuffleIntegrityError("Rows cannot be read back from disk", shuffle=name, partition=partition)
            start = 0
            for extent, count, _ in chunk.fields.extents:
                if extent == partition:
                    rows += chunk.rows[start : start + count]
                start += count
        found = (len(rows), sum(content(stage_id, row)[1] for row in rows) & SUM_MASK)
        placing = Placing(stage=held.plan.stages[stage_id], num_partitions=held.num_partitions[stage_id])
        strays = placing.strays(rows, partition)
        if (found != promised or strays) and self.world.guards.audit_readers:
            raise ShuffleIntegrityError(
                f"partition {partition} of shuffle {name} has {found} where {promised} were sent",
                shuffle=name,
                partition=partition,
            )
        return rows, found[1]

    def rot(self, rng: random.Random) -> bool:
        """A bit of some row that is stored here flips; whether there is one."""
        chunks = [chunk for shuffle in self.shuffles.values() for chunk in shuffle.chunks if chunk.rows]
        if chunks:
            chunk = rng.choice(chunks)
            chunk.rows = (*chunk.rows[:-1], chunk.rows[-1] ^ (1 << rng.randrange(20)))
        return bool(chunks)

    # Streams

    def on_message(self, stream: Stream) -> None:
        """The handler's thread of one stream: one message after the other, in order."""
        if stream.ended:
            return
        stream.busy = True
        header, rows = stream.inbox[0]
        if header == OPENING:
            stream.credit = self.memory.open_stream(stream.writer.process.name)
            self._answer(stream)
            return
        if header == REQUEST:
            self.memory.request(stream.credit, rows[0], lambda: self._answer(stream))
            return
        fields = decode_header(header)
        if rows and not self.memory.desk.arrived(stream.credit, fields.bytes):
            self._answer(stream, error=LimitReached("A chunk came for which the stream has no credit"))
        elif self._is_expected(fields):
            self._go_on(stream)
        else:
            deadline = self.later(OPEN_WAIT_S, lambda: self._waited_too_long(fields.shuffle_id, stream), deadline=True)
            self._waiting.setdefault(fields.shuffle_id, []).append((stream, deadline))

    def _is_expected(self, fields: HeaderFields) -> bool:
        """Whether the shuffle is open, by a table as new as the sender's, or will never be."""
        job_id = fields.shuffle_id.partition("/")[0]
        if job_id in self.ended:
            return True
        return fields.shuffle_id in self.shuffles and fields.epoch <= self.jobs[job_id].table.epoch

    def look_again(self, name: str) -> None:
        """The shuffle has been opened, or has another owner table."""
        for stream, deadline in self._waiting.pop(name, []):
            if self._is_expected(decode_header(stream.inbox[0][0])):
                deadline.cancel()
                self._go_on(stream)
            else:
                self._waiting.setdefault(name, []).append((stream, deadline))

    def on_end(self, stream: Stream) -> None:
        """The stream is over for its reader; a handler that waits goes on until it finds that out."""
        if stream.ended:
            return
        stream.ended = True
        if not stream.busy:
            self.memory.close_stream(stream.credit)

    def _waited_too_long(self, name: str, stream: Stream) -> None:
        self._waiting[name] = [entry for entry in self._waiting[name] if entry[0] is not stream]
        self._go_on(stream)

    def _go_on(self, stream: Stream, until_s: float | None = None) -> None:
        """Takes the stream's first message, whose shuffle is open or will not be; waits for room for it."""
        header, rows = stream.inbox[0]
        now_s = self.world.clock.now_s
        until_s = now_s + OPEN_WAIT_S if until_s is None else until_s
        if rows and not self.memory.allocate("store", bytes_of(rows)):
            if now_s < until_s:
                self.memory.when_freed(lambda: self._go_on(stream, until_s))
                self.later(0.1, self.memory.freed)
            else:
                self._settle(stream, error=LimitReached("the agent's memory is full (limit=memory.bytes_max)"))
            return
        fields = decode_header(header)
        kept, error, repeated = False, None, False
        try:
            damaged = not fields.manifest and checksum_of(rows) != fields.checksum
            if damaged and self.world.guards.verify_checksums:
                raise ShuffleIntegrityError(
                    f"Chunk {fields.sequence} was changed on its way: its checksum does not fit"
                )
            if rows and self.world.network.strikes(self.world.odds.forgotten_chunk):
                self.world.fault("forgotten chunk", "by agent-%s", self.place)
            else:
                repeated = self.store(header, rows)
                kept = not repeated
        except SabotError as refusal:
            error = refusal
        if rows and not kept:
            self.memory.free("store", bytes_of(rows))
        self._settle(stream, repeated=repeated, error=error)

    def _settle(self, stream: Stream, *, repeated: bool = False, error: SabotError | None = None) -> None:
        header, rows = stream.inbox[0]
        if rows:
            self.memory.settled(stream.credit, decode_header(header).bytes)
        self._answer(stream, repeated=repeated, error=error)

    def _answer(self, stream: Stream, *, repeated: bool = False, error: SabotError | None = None) -> None:
        """The stream's first message is dealt with."""
        header, _ = stream.inbox.popleft()
        granted = self.memory.desk.granted(stream.credit)
        about = b"" if header in {OPENING, REQUEST} else header
        stream.acknowledge(encode_ack(about, granted, repeated=repeated, error=error))
        stream.busy = False
        if stream.ended:
            self.memory.close_stream(stream.credit)
        elif stream.inbox:
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
