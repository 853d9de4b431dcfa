"""What must hold at every step and at the end, judged with knowledge that no agent has: what every partition should be,
and which faults have struck. Whatever does not hold is a Violation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sabot.agent import job_events as ev
from sabot.dataflow.stage import HashShuffle, JobPlan, shuffle_id
from sabot.errors import JobCancelled, PeerLost, PeerRefused, ShuffleIntegrityError
from sabot.wire.agent_pb2 import JobFinished
from sabot.wire.member import Member

from .jobs import Expected

if TYPE_CHECKING:
    from .agent import HeldJob
    from .client import Client
    from .cluster import Cluster
    from .task import Task

LOSING = {"crash", "long freeze", "long cut", "jump", "lost call", "dropped chunk"}
"""Faults after which an agent may be taken for lost."""


class Violation(AssertionError):
    """An invariant does not hold."""


class Checks:
    """The invariants of one run."""

    def __init__(self, world: Cluster) -> None:
        self._world = world
        self._expected: dict[str, Expected] = {}
        self._started: set[tuple[str, int, int, int]] = set()
        self._committed: dict[tuple[str, int, int], set[int]] = {}
        self._untold: set[tuple[str, tuple[str, int]]] = set()
        self._ended_without: set[str] = set()

    def expect(self, plan: JobPlan) -> None:
        self._expected[plan.job_id] = Expected(plan)

    def window(self, unacknowledged: int, chunks_max: int) -> None:
        if unacknowledged > chunks_max:
            raise Violation(f"{unacknowledged} chunks of one stream are unacknowledged, not {chunks_max} at most")

    def task_started(self, job_id: str, command: ev.StartTask) -> None:
        """An attempt is started once, and reads one committed attempt of every task."""
        attempt = (job_id, command.stage_id, command.task, command.attempt)
        if attempt in self._started:
            raise Violation(f"attempt {attempt} is started a second time")
        self._started.add(attempt)
        for stage_id, attempts in command.inputs:
            for task, read in enumerate(attempts):
                if read not in self._committed.get((job_id, stage_id, task), set()):
                    raise Violation(f"{attempt} reads attempt {read} of task {task} of stage {stage_id}: not committed")

    def committed(self, job_id: str, event: ev.TaskSucceeded) -> None:
        self._committed.setdefault((job_id, event.stage_id, event.task), set()).add(event.attempt)

    def task_done(self, task: Task) -> None:
        """What all owners have confirmed lies with those that live, every row of it."""
        held, command = task.held, task.command
        if not isinstance(task.stage.output, HashShuffle):
            return
        name = shuffle_id(held.plan.job_id, command.stage_id)
        for partition, (rows, _) in task.sums.items():
            owner = held.owners[held.owner_of(partition)]
            agent = self._world.living(owner)
            shuffle = agent.shuffles.get(name) if agent is not None else None
            if shuffle is None:
                continue
            stored = sum(
                count
                for fields, _ in shuffle.chunks
                if (fields.task, fields.attempt) == (command.task, command.attempt)
                for extent, count, _ in fields.extents
                if extent == partition
            )
            if stored != rows:
                raise Violation(
                    f"{name}: {stored} of {rows} confirmed rows of partition {partition} are with its owner"
                )

    def partition_read(
        self, held: HeldJob, stage_id: int, partition: int, attempts: tuple[int, ...], rows: list[int]
    ) -> None:
        """What the audit lets pass is exactly what the partition should be."""
        count = held.num_partitions[stage_id]
        wanted = self._expected[held.plan.job_id].partition(stage_id, partition, count)
        if sorted(rows) != wanted:
            raise Violation(
                f"partition {partition} of stage {stage_id} was read from attempts {attempts} as {sorted(rows)}, "
                f"and is {wanted}"
            )

    def receipts(self, plan: JobPlan, finished: JobFinished) -> None:
        for receipt in finished.shuffles:
            wanted = len(self._expected[plan.job_id].rows(receipt.stage_id))
            if not receipt.rows_in == receipt.rows_out == wanted or receipt.sum_in != receipt.sum_out:
                raise Violation(f"the receipt of {receipt.shuffle_id} says {receipt}, and {wanted} rows went into it")

    def not_told(self, job_id: str, member: Member) -> None:
        """The coordinator could not tell `member` that the job has ended."""
        self._untold.add((job_id, member.identity))

    def ended_without_coordinator(self, job_id: str) -> None:
        """An agent has taken the job's coordinator for lost."""
        self._ended_without.add(job_id)

    def outcome(self, client: Client) -> None:
        """An exact answer, or a failure that the faults explain."""
        fired, error = self._world.fired, client.error
        if error is None and client.got_answer:
            wanted = self._expected[client.plan.job_id].rows(client.plan.stages[-1].stage_id)
            if client.rows != wanted:
                raise Violation(f"the answer is {client.rows}, and should be {wanted}")
            return
        match error:
            case None:
                allowed = client.coordinator_lost
            case PeerLost() | PeerRefused():
                # Who was away himself for longer than a broken stream is resumed gives the peer up.
                paused = bool(fired & {"freeze", "cut"}) and "broken stream" in fired
                allowed = bool(fired & LOSING) or paused
            case ShuffleIntegrityError():
                allowed = bool(fired & {"corrupt chunk", "rotten chunk"})
            case JobCancelled():
                allowed = "cancel" in fired or client.plan.job_id in self._ended_without
            case _:
                allowed = False
        if not allowed:
            raise Violation(
                f"the job failed with {type(error).__name__}: {error}; all that had struck is {sorted(fired)}"
            )

    def nothing_left(self, job_ids: list[str]) -> None:
        """Nothing outlives its job on an agent that lives."""
        for agent in self._world.agents:
            if agent.process.dead:
                continue
            for job_id in job_ids:
                if (job_id, agent.member.identity) in self._untold:
                    continue
                left = [name for name in agent.shuffles if name.startswith(f"{job_id}/")]
                left += [str(key) for key in agent.outboxes if key[0].startswith(f"{job_id}/")]
                if job_id in agent.jobs or left:
                    raise Violation(f"{agent.member.agent_id} still holds job {job_id}: {left}")
