"""What must hold at every step and at the end, judged with knowledge that no agent has: what every partition should be,
and which faults have struck. Whatever does not hold is a Violation.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.coordinator import Coordinator
from sabot.dataflow.stage import JobPlan, PartitionSplit, Shuffle, WriteOutput, shuffle_id
from sabot.errors import JobCancelled, LimitReached, PeerLost, PeerRefused, ShuffleIntegrityError, UsageError
from sabot.native._native import HeaderFields
from sabot.wire.agent_pb2 import JobFinished
from sabot.wire.member import Member

from .datasets import Written, contents, is_possible, left_of
from .jobs import MARK, SUM_MASK, Expected, Rows
from .readers import Readers

if TYPE_CHECKING:
    from .agent import HeldJob
    from .client import Client
    from .cluster import Cluster
    from .memory import Memory
    from .task import Task

LOSING = {"crash", "long freeze", "long cut", "jump", "lost call", "dropped chunk"}
"""Faults after which an agent may be taken for lost."""
TRYING = {"lost call", "dropped chunk", "forgotten chunk", "corrupt chunk", "rotten chunk", "broken stream"}
"""Faults of which each may cost a task an attempt."""
ATTEMPTS_MAX = 4


class Violation(AssertionError):
    """An invariant does not hold."""


class Checks:
    """The invariants of one run."""

    def __init__(self, world: Cluster) -> None:
        self._world = world
        self._expected: dict[str, Expected] = {}
        self._prepared: set[tuple[str, int]] = set()
        self._started: set[tuple[str, int, int, int]] = set()
        self._committed: dict[tuple[str, int, int], set[int]] = {}
        self._void: set[tuple[str, int, int, int]] = set()  # attempts that were cancelled
        self._readers: defaultdict[str, Readers] = defaultdict(Readers)  # by job
        self._sends: dict[tuple[str, int, int, int], frozenset[int] | None] = {}

    def expect(self, plan: JobPlan) -> None:
        self._expected[plan.job_id] = Expected(plan)

    def window(self, unacknowledged: int, chunks_max: int) -> None:
        if unacknowledged > chunks_max:
            raise Violation(f"{unacknowledged} chunks of one stream are unacknowledged, not {chunks_max} at most")

    def prepared(self, job_id: str, event: ev.Prepared) -> None:
        self._prepared.add((job_id, event.agent))

    def task_started(self, job_id: str, command: ev.StartTask, keepers: Iterable[Member]) -> None:
        """An attempt is started once, where the job is prepared, and reads one committed attempt of every task."""
        if (job_id, command.agent) not in self._prepared:
            raise Violation(f"a task is started on agent {command.agent}, which has not said that it is prepared")
        attempt = (job_id, command.stage_id, command.task, command.attempt)
        if attempt in self._started:
            raise Violation(f"attempt {attempt} is started a second time")
        self._started.add(attempt)
        if not self._expected[job_id].told(command):
            raise Violation(f"{attempt} is to send by other ranges than attempts before it")
        self._sends[attempt] = command.partitions
        partition = command.split.partition if isinstance(command.split, PartitionSplit) else 0
        inputs = [(stage_id, partition, command.read_tasks, attempts) for stage_id, attempts in command.inputs]
        copies = [(copy.stage_id, copy.partition, None, copy.attempts) for copy in command.copies]
        given: dict[tuple[int, int, int], int] = {}
        for stage_id, partition, tasks, attempts in (*inputs, *copies):
            if tasks is not None and len(tasks) != len(attempts):
                raise Violation(f"{attempt} reads {attempts} of the tasks {tasks} of stage {stage_id}")
            for task, read in zip(tasks or range(len(attempts)), attempts, strict=True):
                if read not in self._committed.get((job_id, stage_id, task), set()):
                    raise Violation(f"{attempt} reads attempt {read} of task {task} of stage {stage_id}: not committed")
                given[stage_id, partition, task] = read
                sent = self._sends[job_id, stage_id, task, read]
                if sent is not None and partition not in sent:
                    raise Violation(
                        f"{attempt} reads attempt {read} of task {task} of stage {stage_id}, a replay of {sent}"
                    )
        if others := self._readers[job_id].reads(attempt[1:], given):
            raise Violation(f"{attempt} is given {given}, and {others}, which are under way, were given others of them")
        self._readers[job_id].started(command, frozenset(member.identity for member in keepers))

    def task_cancelled(self, job_id: str, command: ev.CancelTask) -> None:
        self._void.add((job_id, command.stage_id, command.task, command.attempt))
        self._readers[job_id].ended(command.stage_id, command.task, command.attempt)

    def task_ended(self, job_id: str, event: ev.TaskSucceeded | ev.TaskFailed) -> None:
        """As its coordinator is about to hear."""
        self._readers[job_id].ended(event.stage_id, event.task, event.attempt)

    def taken_over(self, job_id: str, coordinator: Coordinator, keepers: Iterable[Member]) -> None:
        """A coordinator that goes on from what `keepers` hold knows all that running readers were given."""
        begun = [run.stage.stage_id for run in coordinator._stages if run.started]
        self._expected[job_id].taken_over(coordinator.epoch, begun)
        unknown = self._readers[job_id].unknown_to(coordinator, frozenset(member.identity for member in keepers))
        if unknown:
            raise Violation(f"job {job_id} is taken over by one that knows nothing of {unknown}, which were being read")

    def committed(self, job_id: str, event: ev.TaskSucceeded, epoch: int) -> None:
        """Told before the coordinator is: what it has cancelled, or what was sent before `epoch`, counts no more."""
        if event.sent_epoch is not None and event.sent_epoch < epoch:
            return
        if (job_id, event.stage_id, event.task, event.attempt) not in self._void:
            self._committed.setdefault((job_id, event.stage_id, event.task), set()).add(event.attempt)

    def stored(self, held: HeldJob, fields: HeaderFields) -> None:
        """An owner stores nothing of another epoch than its own, nor of an incarnation that it knows is given up."""
        given_up = {held.agents[place].incarnation for place in held.table.lost}
        if fields.epoch != held.table.epoch or fields.incarnation in given_up:
            raise Violation(f"{fields} is stored, and the epoch is {held.table.epoch}; given up are {given_up}")

    def task_read(self, job_id: str, command: ev.StartTask, rows: Rows) -> None:
        """Every attempt of a task has the same rows."""
        if not self._expected[job_id].read(command, rows):
            attempt = (command.stage_id, command.task, command.attempt)
            raise Violation(f"{attempt} of job {job_id} has read other rows than attempts before it: {sorted(rows)}")

    def task_done(self, task: Task) -> None:
        """What all owners have confirmed lies with those that live, every row of it."""
        held, command = task.held, task.command
        if not isinstance(task.stage.output, Shuffle):
            return
        name = shuffle_id(held.plan.job_id, command.stage_id)
        stored = {address: self._stored(held, address, name, task) for address in task.owners}
        for partition, (rows, _) in task.sums.items():
            there = stored[task.owner_of(partition)]
            if there is not None and there[partition] != rows:
                raise Violation(
                    f"{name}: {there[partition]} of {rows} confirmed rows of partition {partition} are with its owner"
                )

    def _stored(self, held: HeldJob, address: str, name: str, task: Task) -> Counter[int] | None:
        """The task's rows by partition that lie with the owner; None where it is gone, or has failed."""
        member = next(agent for agent in held.agents if agent.flight_address == address)
        agent = self._world.living(member)
        shuffle = agent.shuffles.get(name) if agent is not None else None
        if shuffle is None or shuffle.failure is not None:
            return None
        found: Counter[int] = Counter()
        for chunk in shuffle.chunks:
            if chunk.attempt == (task.command.task, task.command.attempt):
                for partition, count, _ in chunk.fields.extents:
                    found[partition] += count
        return found

    def bytes(self, memory: Memory) -> None:
        """What is allocated keeps the limit, and what is promised is what the desk has given."""
        allocated, _, _, credits = memory.ledger.snapshot()
        if memory.bytes_max and allocated > memory.bytes_max:
            raise Violation(f"{allocated} bytes are allocated, and the limit is {memory.bytes_max}")
        if credits != memory.desk.reserved_bytes:
            raise Violation(
                f"{credits} bytes are reserved for credits, and the desk has given {memory.desk.reserved_bytes}"
            )

    def partition_read(
        self, held: HeldJob, stage_id: int, partition: int, attempts: list[tuple[int, int]], rows: list[int]
    ) -> None:
        """What the audit lets pass is exactly what the partition should be."""
        count = held.num_partitions[stage_id]
        expected = self._expected[held.plan.job_id]
        if not expected.knows(stage_id):
            if len({row % MARK for row in rows}) < len(rows):
                raise Violation(f"partition {partition} of stage {stage_id} has a row twice: {sorted(rows)}")
            return
        expected.num_partitions = held.num_partitions
        wanted = expected.partition(stage_id, partition, count, [task for task, _ in attempts])
        if sorted(rows) != wanted:
            raise Violation(
                f"partition {partition} of stage {stage_id} was read from attempts {attempts} as {sorted(rows)}, "
                f"and is {wanted}"
            )

    def receipts(self, plan: JobPlan, finished: JobFinished) -> None:
        for receipt in finished.shuffles:
            wanted = len(self._expected[plan.job_id].rows(receipt.stage_id))
            rows, content_sum = receipt.rows_out - receipt.copies, (receipt.sum_out - receipt.sum_copies) & SUM_MASK
            if not receipt.rows_in == rows == wanted or receipt.sum_in != content_sum:
                raise Violation(f"the receipt of {receipt.shuffle_id} says {receipt}, and {wanted} rows went into it")

    def outcome(self, client: Client) -> None:
        """An exact answer, or a failure that the faults explain."""
        error = client.error
        if error is None:
            wanted = self._expected[client.plan.job_id].rows(client.plan.stages[-1].stage_id)
            if isinstance(client.plan.stages[-1].output, WriteOutput):
                if not self._contenders(client):
                    self.dataset(client, complete=False)
            elif client.rows != wanted:
                raise Violation(f"the answer is {client.rows}, and should be {wanted}")
            return
        if not self._explained(client):
            struck = ", ".join(f"{count} {name}" for name, count in sorted(self._world.fired.items()))
            raise Violation(
                f"the job failed with {type(error).__name__}: {error}; what had struck: {struck or 'nothing'}"
            )

    def _explained(self, client: Client) -> bool:
        fired = self._world.fired
        match client.error:
            case JobCancelled():
                explained = "cancel" in fired
            case UsageError():  # of two jobs that want an empty folder one gets it
                others = self._contenders(client)
                explained = bool(others) and not any(isinstance(other.error, UsageError) for other in others)
            case LimitReached():
                explained = "full disk" in fired or "failing disk" in fired
            case ShuffleIntegrityError():
                spoilt = fired["corrupt chunk"] + fired["rotten chunk"]  # one is sent again
                explained = spoilt > 1 or "failing disk" in fired
            case PeerLost() | PeerRefused() if client.got_answer:  # who kept a part of it is lost
                explained = not LOSING.isdisjoint(fired)
            case PeerLost() | PeerRefused():
                explained = sum(fired[name] for name in TRYING) >= ATTEMPTS_MAX or (
                    self._upload_lost(client) or self._all_struck(client)
                )
            case _:
                explained = False
        return explained

    def _all_struck(self, client: Client) -> bool:
        """Each agent of the job has died, frozen or been cut off for a while, or was given up for a call that got lost,
        so that no one could go on.
        """
        others = {member.identity for member in client.members} - self._world.struck
        return len(others) <= self._world.fired["lost call"]

    def _upload_lost(self, client: Client) -> bool:
        """An agent that alone held rows of the job has been given up."""
        living = {member.flight_address for member in client.driver.living} if client.driver is not None else set()
        return any(piece.flight_address not in living for pieces in client.plan.uploads.values() for piece in pieces)

    def dataset(self, client: Client, *, complete: bool = True) -> None:
        """What jobs have written to the client's folder is there once and whole, and nothing else is."""
        output = client.plan.stages[-1].output
        if not isinstance(output, WriteOutput):
            return
        jobs = [client, *self._contenders(client)]
        found = contents(output.folder, complete=complete)
        wrote = [self._written(job) for job in jobs]
        if not is_possible(found, self._had_earlier(jobs), wrote):
            ends = ", ".join(f"{job.plan.job_id} has ended with {job.error!r}" for job in jobs)
            raise Violation(f"the dataset of {ends}, and is {found}; they wrote {[job.parts() for job in wrote]}")
        left = left_of(output.folder, client.plan.job_id)
        if left and complete and client.error is None and not any(self._coordinator_lost(job) for job in jobs):
            raise Violation(f"job {client.plan.job_id} has left {left}")

    def _contenders(self, client: Client) -> list[Client]:
        """The clients of other jobs that write to the same folder."""
        output = client.plan.stages[-1].output
        if not isinstance(output, WriteOutput):
            return []
        outputs = [(other, other.plan.stages[-1].output) for other in self._world.clients if other is not client]
        return [
            other for other, theirs in outputs if isinstance(theirs, WriteOutput) and theirs.folder == output.folder
        ]

    def _written(self, client: Client) -> Written:
        output = client.plan.stages[-1].output
        assert isinstance(output, WriteOutput)
        published = True if client.error is None else False if isinstance(client.error, UsageError) else None
        rows = self._expected[client.plan.job_id].rows(client.plan.stages[-1].stage_id)
        return Written(output=output, rows=rows, published=published)

    def _had_earlier(self, jobs: list[Client]) -> bool:
        """Whether there was something in the folder before: the first job of it was to take its place then."""
        first = min(jobs, key=self._world.clients.index).plan.stages[-1].output
        assert isinstance(first, WriteOutput)
        return first.existing_data_behavior == "delete_matching"

    def _coordinator_lost(self, client: Client) -> bool:
        return bool(client.takeovers) or client.driver is None or client.driver.agent.process.dead

    def nothing_left(self, job_ids: list[str]) -> None:
        """Nothing outlives its job on an agent that lives."""
        for agent in self._world.agents:
            if agent.process.dead:
                continue
            for job_id in job_ids:
                left = [name for name in agent.shuffles if name.startswith(f"{job_id}/")]
                left += [str(key) for key in agent.outboxes if key[0].startswith(f"{job_id}/")]
                if job_id in agent.jobs or left:
                    raise Violation(f"{agent.member.agent_id} still holds job {job_id}: {left}")
            allocated, _, _, credits = agent.memory.ledger.snapshot()
            on_disk = agent.memory.disk_bytes_max - agent.memory.disk_left
            if allocated or credits or on_disk:
                raise Violation(
                    f"{agent.member.agent_id} holds {allocated} bytes, {on_disk} more on disk, and has promised "
                    f"{credits} after its jobs"
                )
