"""What a job can prove about its rows, and what each of its stages did.

Values only, made from what the coordinator reports: it folds what every agent counted before the wire and anew after.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from sabot.wire import agent_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionReceipt:
    """What was sent to one partition, and came out of it."""

    partition: int
    rows: int
    num_bytes: int
    content_sum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleReceipt:
    """One shuffle's account, added over its partitions.

    `sum_in` and `sum_out` are the wrapping content sums taken before the wire and after it, `bytes_in` and `bytes_out`
    the bytes of the rows' values, however they were packed. `partial`: a reader stopped early on purpose (`head`), so
    that fewer rows out than in are no loss. `copies` are rows that were given to several tasks on purpose, beyond the
    first copy, with `bytes_copies` and the content sum `sum_copies`: they are among the rows out. `partitions` has each
    by itself, unless the job has more than 100,000.
    """

    shuffle_id: str
    stage_id: int
    num_partitions: int
    rows_in: int
    rows_out: int
    sum_in: int
    sum_out: int
    wire_bytes: int
    local_bytes: int
    partial: bool = False
    copies: int = 0
    sum_copies: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_copies: int = 0
    partitions: tuple[PartitionReceipt, ...] = ()

    @property
    def skew(self) -> float:
        """The rows of the largest partition over the mean of all; 1.0 where all are alike or not known."""
        rows = [partition.rows for partition in self.partitions]
        return max(rows) * len(rows) / sum(rows) if any(rows) else 1.0

    @property
    def lost(self) -> int:
        """Rows that went in and did not come out."""
        return 0 if self.partial else max(0, self.rows_in + self.copies - self.rows_out)

    @property
    def doubled(self) -> int:
        """Rows that came out more often than they went in, but for copies made on purpose."""
        return max(0, self.rows_out - self.rows_in - self.copies)

    @property
    def sums_agree(self) -> bool:
        """Whether the rows that came out are the rows that went in, not only as many."""
        sums_agree = (self.sum_in + self.sum_copies) % (1 << 64) == self.sum_out
        return self.partial or (sums_agree and self.bytes_in + self.bytes_copies == self.bytes_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The audit of a whole job: every shuffle, and the rows of the result, which the session checks as it reads."""

    job_id: str
    shuffles: tuple[ShuffleReceipt, ...]
    result_rows: int

    @property
    def rows_in(self) -> int:
        """Rows that entered a shuffle, added over the shuffles."""
        return sum(shuffle.rows_in for shuffle in self.shuffles)

    @property
    def rows_out(self) -> int:
        """Rows that were released from a shuffle, added over the shuffles."""
        return sum(shuffle.rows_out for shuffle in self.shuffles)

    @property
    def copies(self) -> int:
        """Rows that were given to several tasks on purpose, beyond the first copy; they are among the rows out."""
        return sum(shuffle.copies for shuffle in self.shuffles)

    @property
    def lost(self) -> int:
        return sum(shuffle.lost for shuffle in self.shuffles)

    @property
    def doubled(self) -> int:
        return sum(shuffle.doubled for shuffle in self.shuffles)

    @property
    def wire_bytes(self) -> int:
        """Bytes that went from one agent to another."""
        return sum(shuffle.wire_bytes for shuffle in self.shuffles)

    @property
    def local_bytes(self) -> int:
        """Bytes that went from an agent to itself, by the same checks and without a socket."""
        return sum(shuffle.local_bytes for shuffle in self.shuffles)

    @property
    def exact(self) -> bool:
        """Whether no row was lost, doubled or changed on its way."""
        return all(not s.lost and not s.doubled and s.sums_agree for s in self.shuffles)

    def __str__(self) -> str:
        lines = [
            f"rows in {self.rows_in:,}, rows out {self.rows_out:,}, lost {self.lost:,}, doubled {self.doubled:,}; "
            f"{format_bytes(self.wire_bytes)} over the wire, {format_bytes(self.local_bytes)} local; "
            f"result {self.result_rows:,} rows"
        ]
        for s in self.shuffles:
            partial = ", read in part" if s.partial else ""
            copies = f"copies {s.copies:,}, " if s.copies else ""
            sums = "" if s.sums_agree else ", contents differ"
            lines.append(
                f"  shuffle of stage {s.stage_id}, {s.num_partitions} partitions: "
                f"in {s.rows_in:,}, {copies}out {s.rows_out:,}, lost {s.lost:,}, doubled {s.doubled:,}; "
                f"wire {format_bytes(s.wire_bytes)}, local {format_bytes(s.local_bytes)}{partial}{sums}"
            )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStats:
    """What one stage did. Rows are those that its tasks took and gave, each task counted once; bytes and times are of
    all attempts that succeeded.

    `tasks_redone` are the attempts after the first of their task; `second_attempts` those beside it, of slow tasks.
    `elapsed_s` goes from the first task's start to the last one's end, `task_s` is the tasks' time added up, waits
    included. `slots_used` are different slots of all agents; a large join counts all slots of its agent. `skew` is how
    many times the mean of rows the largest partition has that it sent, or its largest task; 0 until it is done.
    `rows_quarantined` are those of batches that functions failed on. `spilled_bytes` are about what of the partitions
    that it read was on disk.
    """

    stage_id: int
    label: str
    tasks_total: int
    tasks_done: int
    rows_out: int
    wire_bytes: int
    tasks_redone: int = 0
    second_attempts: int = 0
    rows_in: int = 0
    local_bytes: int = 0
    elapsed_s: float = 0.0
    task_s: float = 0.0
    slots_used: int = 0
    skew: float = 0.0
    rows_quarantined: int = 0
    spilled_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What the job did, stage by stage; `elapsed_s` is the coordinator's time from submission to the end.

    `agents_lost` are the agent_ids that the job has gone on without, `agents_joined` those that came while it ran.
    """

    stages: tuple[StageStats, ...]
    elapsed_s: float
    agents_lost: tuple[str, ...] = ()
    agents_joined: tuple[str, ...] = ()

    @property
    def tasks_redone(self) -> int:
        """Of all stages: what losses have cost."""
        return sum(stage.tasks_redone for stage in self.stages)


def format_bytes(count: int) -> str:
    """Bytes for people, in binary units."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def stages_from(messages: Iterable[agent_pb2.StageProgress]) -> tuple[StageStats, ...]:
    """The stages as a coordinator reports them, running or done."""
    names = [field.name for field in fields(StageStats)]
    return tuple(StageStats(**{name: getattr(message, name) for name in names}) for message in messages)


def receipt_from(job_id: str, finished: agent_pb2.JobFinished) -> Receipt:
    """The receipt of a job that has succeeded."""
    return Receipt(
        job_id=job_id,
        shuffles=tuple(
            ShuffleReceipt(
                shuffle_id=m.shuffle_id,
                stage_id=m.stage_id,
                num_partitions=m.num_partitions,
                rows_in=m.rows_in,
                rows_out=m.rows_out,
                sum_in=m.sum_in,
                sum_out=m.sum_out,
                wire_bytes=m.wire_bytes,
                local_bytes=m.local_bytes,
                partial=m.partial,
                copies=m.copies,
                sum_copies=m.sum_copies,
                bytes_in=m.bytes_in,
                bytes_out=m.bytes_out,
                bytes_copies=m.bytes_copies,
                partitions=tuple(
                    PartitionReceipt(
                        partition=p.partition, rows=p.rows, num_bytes=p.num_bytes, content_sum=p.content_sum
                    )
                    for p in m.partitions
                ),
            )
            for m in finished.shuffles
        ),
        result_rows=sum(partition.rows for partition in finished.partitions),
    )


def stats_from(finished: agent_pb2.JobFinished) -> Stats:
    """The stats of a job that has succeeded."""
    return Stats(
        stages=stages_from(finished.stages),
        elapsed_s=finished.elapsed_s,
        agents_lost=tuple(finished.agents_lost),
        agents_joined=tuple(finished.agents_joined),
    )
