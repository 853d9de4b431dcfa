"""Folds what tasks report into one receipt per shuffle, and refuses a job whose rows do not add up.

What goes into a shuffle is counted at the partitioner's input, what comes out is counted anew by the reader; here the
two meet. What a replay reports takes the place of what was lost. Files are held against their row groups, and steps
that can neither add nor drop rows against that. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from sabot.dataflow.stage import (
    FilesSplit,
    JobPlan,
    PartitionSplit,
    Project,
    ResultOutput,
    Share,
    ShuffleInput,
    Sort,
    Split,
    Stage,
    TableSplit,
    WriteOutput,
    shuffle_id,
)
from sabot.errors import InternalError, ShuffleIntegrityError
from sabot.wire.agent_pb2 import PartitionSum, RunTaskReply, ShuffleReceipt

PARTITIONS_TOLD_MAX = 100_000
"""Of all shuffles of a job: with more of them the receipt tells of shuffles as a whole only."""

_SUM_MASK = (1 << 64) - 1


@dataclass(slots=True)
class _Count:
    """Rows, their wrapping content sum, and their bytes."""

    rows: int = 0
    content_sum: int = 0
    num_bytes: int = 0

    def add(self, part: PartitionSum | _Count) -> None:
        self.rows += part.rows
        self.content_sum = (self.content_sum + part.content_sum) & _SUM_MASK
        self.num_bytes += part.num_bytes

    def __sub__(self, other: _Count) -> _Count:
        content_sum = (self.content_sum - other.content_sum) & _SUM_MASK
        return _Count(self.rows - other.rows, content_sum, self.num_bytes - other.num_bytes)

    def __str__(self) -> str:
        return f"{self.rows:,} rows of {self.num_bytes:,} bytes with content sum {self.content_sum:#018x}"


class _Counts(list[_Count]):
    """By partition. Packed as bare numbers: there may be thousands in the state of a job, which is packed often."""

    @classmethod
    def of(cls, partitions: int) -> _Counts:
        return cls(_Count() for _ in range(partitions))

    def __reduce__(self) -> tuple[Callable[..., _Counts], tuple[list[int], list[int], list[int]]]:
        rows = [count.rows for count in self]
        return _counts, (rows, [count.content_sum for count in self], [count.num_bytes for count in self])


@dataclass(slots=True)
class _Sent:
    """What one stage put into its shuffle."""

    shuffle_id: str
    partitions: _Counts
    wire_bytes: int = 0
    local_bytes: int = 0


@dataclass(slots=True)
class _Reading:
    """What one input of a stage took out of a shuffle, by partition; `partial`: a task stopped early on purpose."""

    sent_by: int
    released: _Counts
    partial: bool = False
    shares: dict[int, dict[int, _Count]] = field(default_factory=dict)  # by partition and index
    resent: set[int] = field(default_factory=set)  # partitions that were sent again when some of their shares were in
    copied: dict[int, _Count] = field(default_factory=dict)  # what shares were given beyond the first copy

    def put_together(self, split: PartitionSplit, share: Share, position: int, now: _Count) -> _Count | None:
        """Counts what a share was given. What is to be held against what was sent: of the input that was cut all shares
        together, None until the last is in; of the other one each copy.
        """
        shares = self.shares.setdefault(split.partition, {})
        shares[share.index] = now
        self.released[split.partition] = total = _total(shares.values())
        if position == share.side:
            return total if len(shares) == share.count else None
        self.copied[split.partition] = total - now
        return now

    def told(self, sent: _Sent) -> ShuffleReceipt:
        """All partitions together."""
        receipt = _receipt(_total(sent.partitions), _total(self.released), _total(self.copied.values()))
        receipt.partial = self.partial
        return receipt

    def agrees(self, partition: int, whole: _Count, sent: _Count) -> bool:
        """Whether what was given is what was sent. A float sum may be another one in a replay: where shares were read
        before and after one, each is what its manifests say, and together they have as many rows.
        """
        return whole.rows == sent.rows if partition in self.resent else whole == sent


@dataclass(slots=True)
class _Copies:
    """What the tasks of one stage took out of a broadcast: each of them all rows. By task; a task that runs again is
    counted once.
    """

    sent_by: int
    released: dict[int, _Count] = field(default_factory=dict)

    def told(self, _: _Sent) -> ShuffleReceipt:
        """One copy, what was read of all, and what of that was read beyond the first."""
        read = list(self.released.values())
        return _receipt(_total(read[:1]), _total(read), _total(read[1:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskIdentity:
    """Who did what: it is named in every error."""

    stage: Stage
    task: int
    attempt: int
    agent_id: str

    def __str__(self) -> str:
        return f"task {self.task} (attempt {self.attempt}) of stage {self.stage.stage_id} on agent {self.agent_id}"


class Receipts:
    """The account of one job. `fold` takes each task's reply once, those of a stage after all of its inputs'."""

    def __init__(self, plan: JobPlan, num_partitions: dict[int, int]) -> None:
        self._num_partitions = dict(num_partitions)
        self._sent = {
            stage_id: _Sent(shuffle_id(plan.job_id, stage_id), _Counts.of(count))
            for stage_id, count in num_partitions.items()
        }
        self._readings: dict[tuple[int, int], _Reading] = {
            (stage.stage_id, position): _Reading(sent_by, _Counts.of(num_partitions[sent_by]))
            for stage in plan.stages
            if isinstance(stage.input, ShuffleInput)
            for position, sent_by in enumerate(stage.input.stage_ids)
        }
        self._copies = {
            (stage.stage_id, sent_by): _Copies(sent_by) for stage in plan.stages for sent_by in stage.copied
        }
        self._broadcasts = {sent_by for _, sent_by in self._copies}

    def lose(self, stage_id: int, partitions: Iterable[int]) -> None:
        """What the stage sent to these partitions is gone; every task of it will tell of them again."""
        for partition in partitions:
            self._sent[stage_id].partitions[partition] = _Count()
            for reading in self._readings.values():
                if reading.sent_by == stage_id and partition in reading.shares:
                    reading.resent.add(partition)

    def stop_early(self, stage_id: int) -> None:
        """Some tasks of the stage were left out: its readers read in part, and so does it."""
        for (reader, _), reading in self._readings.items():
            reading.partial = reading.partial or stage_id in (reader, reading.sent_by)

    def reset(self, stage_id: int) -> None:
        """All that the stage has sent and read is void."""
        if stage_id in self._sent:
            self.lose(stage_id, range(self._num_partitions[stage_id]))
        for (reader, _), reading in self._readings.items():
            if reader == stage_id:
                reading.released = _Counts.of(len(reading.released))
                reading.partial = False
                reading.shares.clear()
                reading.copied.clear()
                reading.resent.clear()
        for (reader, _), copies in self._copies.items():
            if reader == stage_id:
                copies.released.clear()

    def fold(
        self, who: TaskIdentity, split: Split, reply: RunTaskReply, partitions: frozenset[int] | None = None
    ) -> None:
        """Add one task's account; ShuffleIntegrityError or InternalError where it does not agree with what is known.

        `partitions` are those that a replay was to send, None for all.
        """
        if who.stage.stage_id in self._sent:
            self._fold_sent(who, reply, partitions)
        self._fold_copied(who, reply)
        if isinstance(split, PartitionSplit):
            self._fold_released(who, split, reply)
        elif not reply.partial:
            _check_rows_read(who, split, reply)
        if isinstance(who.stage.output, ResultOutput):
            _check_result(who, reply)
        if isinstance(who.stage.output, WriteOutput) and sum(file.rows for file in reply.written) != reply.rows_out:
            raise _bug(f"{who} gave {reply.rows_out:,} rows and wrote {sum(file.rows for file in reply.written):,}")
        if all(isinstance(step, (Project, Sort)) for step in who.stage.steps) and reply.rows_in != reply.rows_out:
            raise _bug(
                f"{who} took {reply.rows_in:,} rows and gave {reply.rows_out:,}, and none of its steps may do so"
            )

    def fold_move(self, who: TaskIdentity, reply: RunTaskReply, partitions: frozenset[int] | None) -> None:
        """Add what an agent that leaves has sent on of what the task had sent to it."""
        self._add_sent(who, reply, partitions)

    def rows_sent(self, stage_id: int) -> list[int]:
        """Rows that the stage put into its shuffle, by partition."""
        return [count.rows for count in self._sent[stage_id].partitions]

    def row_bytes(self, stage_ids: Iterable[int]) -> float:
        """The mean of the rows that the stages put into their shuffles."""
        sent = [self._sent[stage_id] for stage_id in stage_ids]
        rows = sum(count.rows for one in sent for count in one.partitions)
        return sum(one.wire_bytes + one.local_bytes for one in sent) / max(1, rows)

    def narrow(self, stage_id: int, num_partitions: int) -> None:
        """The stage, which has sent nothing yet, will send to the first partitions alone."""
        self._num_partitions[stage_id] = num_partitions
        del self._sent[stage_id].partitions[num_partitions:]
        for reading in self._readings.values():
            if reading.sent_by == stage_id:
                del reading.released[num_partitions:]

    def shuffles(self) -> list[ShuffleReceipt]:
        """One receipt for each time that a shuffle was read; the bytes are told with the first."""
        told: set[int] = set()
        receipts = []
        each_told = sum(len(sent.partitions) for sent in self._sent.values()) <= PARTITIONS_TOLD_MAX
        readings: list[_Reading | _Copies] = [*self._readings.values(), *self._copies.values()]
        for reading in readings:
            sent = self._sent[reading.sent_by]
            first = reading.sent_by not in told
            told.add(reading.sent_by)
            receipt = reading.told(sent)
            receipt.shuffle_id, receipt.stage_id = sent.shuffle_id, reading.sent_by
            receipt.num_partitions = len(sent.partitions)
            if first:
                receipt.wire_bytes, receipt.local_bytes = sent.wire_bytes, sent.local_bytes
            if each_told:
                receipt.partitions.extend(_sums(sent.partitions))
            receipts.append(receipt)
        return receipts

    def _fold_sent(self, who: TaskIdentity, reply: RunTaskReply, partitions: frozenset[int] | None) -> None:
        sent, rows = self._sent[who.stage.stage_id], self._add_sent(who, reply, partitions)
        if who.stage.stage_id in self._broadcasts:
            count = len(sent.partitions) if partitions is None else len(partitions)
            if rows != reply.rows_out * count or len({(part.rows, part.content_sum) for part in reply.sent}) > 1:
                what = f"{who} gave {reply.rows_out:,} rows, and {count} copies of them were not sent"
                raise _wrong(sent.shuffle_id, -1, who, what)
        elif rows > reply.rows_out or (partitions is None and rows != reply.rows_out):
            raise _wrong(sent.shuffle_id, -1, who, f"{who} gave {reply.rows_out:,} rows and sent {rows:,}")

    def _add_sent(self, who: TaskIdentity, reply: RunTaskReply, partitions: frozenset[int] | None) -> int:
        """The rows that were sent."""
        sent, rows = self._sent[who.stage.stage_id], 0
        for part in reply.sent:
            if not 0 <= part.partition < len(sent.partitions):
                raise _wrong(sent.shuffle_id, part.partition, who, f"{who} sent rows to a partition that is not there")
            if partitions is not None and part.partition not in partitions:
                raise _wrong(sent.shuffle_id, part.partition, who, f"{who} replayed a partition that was not lost")
            sent.partitions[part.partition].add(part)
            rows += part.rows
        sent.wire_bytes += reply.wire_bytes
        sent.local_bytes += reply.local_bytes
        return rows

    def _fold_copied(self, who: TaskIdentity, reply: RunTaskReply) -> None:
        """Each copy that a task was given is the whole of what was sent to the agent that holds it."""
        reported = [released.stage_id for released in reply.copied]
        if reported != list(who.stage.copied):
            raise _bug(f"{who} accounts for copies of stages {reported} and not of {list(who.stage.copied)}")
        for released in reply.copied:
            sent, partition = self._sent[released.stage_id], released.sum.partition
            if not 0 <= partition < len(sent.partitions):
                raise _wrong(sent.shuffle_id, partition, who, f"{who} was given a copy that is not there")
            was, now = sent.partitions[partition], _Count()
            now.add(released.sum)
            if now != was:
                raise _wrong(sent.shuffle_id, partition, who, f"{was} were sent, and {who} was given {now}")
            self._copies[who.stage.stage_id, released.stage_id].released[who.task] = now

    def _fold_released(self, who: TaskIdentity, split: PartitionSplit, reply: RunTaskReply) -> None:
        assert isinstance(who.stage.input, ShuffleInput)
        partition = split.partition
        expected = [(stage_id, partition) for stage_id in who.stage.input.stage_ids]
        reported = [(released.stage_id, released.sum.partition) for released in reply.released]
        if reported != expected:
            name = self._sent[expected[0][0]].shuffle_id
            raise _wrong(
                name, partition, who, f"{who} accounts for (stage, partition) {reported} and not for {expected}"
            )
        rows = 0
        for position, released in enumerate(reply.released):
            sent = self._sent[released.stage_id]
            reading = self._readings[who.stage.stage_id, position]
            was, now = sent.partitions[partition], _Count()
            now.add(released.sum)
            whole = now if split.share is None else reading.put_together(split, split.share, position, now)
            if whole is not None and not reading.agrees(partition, whole, was):
                raise _wrong(sent.shuffle_id, partition, who, f"{was} were sent, and {who} was given {whole}")
            if split.share is None:
                reading.released[partition] = now
            reading.partial = reading.partial or reply.partial
            rows += released.sum.rows
        if rows != reply.rows_in:
            name = self._sent[expected[0][0]].shuffle_id
            raise _wrong(name, partition, who, f"{who} was given {rows:,} rows and took {reply.rows_in:,}")


def _check_rows_read(who: TaskIdentity, split: Split, reply: RunTaskReply) -> None:
    if isinstance(split, FilesSplit):
        known = [part.rows for part in split.parts]
        rows = None if None in known else sum(count for count in known if count is not None)
        what = ", ".join(part.file.path for part in split.parts[:3]) + (", ..." if len(split.parts) > 3 else "")
    elif isinstance(split, TableSplit):
        rows, what = split.piece.rows, f"piece {split.piece.index} of an uploaded table"
    if rows is not None and reply.rows_in != rows:
        raise _bug(f"{who} read {reply.rows_in:,} of the {rows:,} rows of {what}")


def _check_result(who: TaskIdentity, reply: RunTaskReply) -> None:
    if (reply.result.partition, reply.result.rows) != (who.task, reply.rows_out):
        raise _bug(
            f"{who} gave {reply.rows_out:,} rows and published partition {reply.result.partition} "
            f"with {reply.result.rows:,}"
        )


def _receipt(sent: _Count, read: _Count, copied: _Count) -> ShuffleReceipt:
    """What was sent and what was read; of the latter, what are copies."""
    return ShuffleReceipt(
        rows_in=sent.rows,
        sum_in=sent.content_sum,
        rows_out=read.rows,
        sum_out=read.content_sum,
        bytes_in=sent.num_bytes,
        bytes_out=read.num_bytes,
        copies=copied.rows,
        sum_copies=copied.content_sum,
        bytes_copies=copied.num_bytes,
    )


def _sums(counts: Iterable[_Count]) -> Iterator[PartitionSum]:
    for partition, count in enumerate(counts):
        yield PartitionSum(
            partition=partition, rows=count.rows, content_sum=count.content_sum, num_bytes=count.num_bytes
        )


def _counts(rows: list[int], sums: list[int], num_bytes: list[int]) -> _Counts:
    return _Counts(map(_Count, rows, sums, num_bytes))


def _total(counts: Iterable[_Count]) -> _Count:
    total = _Count()
    for count in counts:
        total.add(count)
    return total


def _wrong(shuffle: str, partition: int, who: TaskIdentity, what: str) -> ShuffleIntegrityError:
    return ShuffleIntegrityError(
        f"shuffle {shuffle}, partition {partition}: {what}; no answer is given, run the job again and report it "
        "if it happens twice",
        shuffle=shuffle,
        partition=partition,
        task=who.task,
        attempt=who.attempt,
        agent=who.agent_id,
    )


def _bug(what: str) -> InternalError:
    return InternalError(f"{what}; no answer is given, please report it with this message")
