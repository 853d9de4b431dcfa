"""What a stage's tasks have done, added up from their replies, and how unevenly its rows lie. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sabot.dataflow.quarantine import QUARANTINE_BYTES_MAX
from sabot.dataflow.stage import Aggregate, Stage
from sabot.errors import LimitReached
from sabot.wire.agent_pb2 import Quarantined, RunTaskReply, StageProgress


class StageAccount:
    """Rows are those of visible attempts; bytes and time are of all that have succeeded, for they were spent."""

    def __init__(self) -> None:
        self.rows_in = 0
        self.rows_out = 0
        self.wire_bytes = 0
        self.local_bytes = 0
        self.task_s = 0.0
        self.spilled_bytes = 0
        self.rows_quarantined = 0
        self._quarantined_bytes = 0
        self._slots: set[tuple[int, int]] = set()  # agent and slot

    def add(self, agent: int, reply: RunTaskReply, before: RunTaskReply | None) -> None:
        """An attempt on `agent` has succeeded; `before` is what the task's last one replied. LimitReached where
        functions have failed on more than is kept.
        """
        earlier = () if before is None else before.quarantined
        self.rows_quarantined += rows_quarantined(reply.quarantined) - rows_quarantined(earlier)
        self._quarantined_bytes += _bytes_of(reply.quarantined) - _bytes_of(earlier)
        if self._quarantined_bytes > QUARANTINE_BYTES_MAX:
            raise LimitReached(
                f"the batches that functions failed on in stage {reply.quarantined[0].stage_id} measure more than "
                f"{QUARANTINE_BYTES_MAX:,} bytes, which is what a stage keeps of them; smaller batches (batch_rows=) "
                "keep fewer rows around a fault, and what fails that often is to be mended"
            )
        self.rows_in += reply.rows_in - (before.rows_in if before is not None else 0)
        self.rows_out += reply.rows_out - (before.rows_out if before is not None else 0)
        self.spilled_bytes += reply.spilled_bytes
        self.add_move(agent, reply)

    def add_move(self, agent: int, reply: RunTaskReply) -> None:
        """What it cost to send rows."""
        self.wire_bytes += reply.wire_bytes
        self.local_bytes += reply.local_bytes
        self.task_s += reply.task_s
        self._slots.update((agent, slot) for slot in reply.slots)

    def fill(self, progress: StageProgress) -> None:
        """Tell what has come together so far."""
        progress.rows_in = self.rows_in
        progress.rows_out = self.rows_out
        progress.wire_bytes = self.wire_bytes
        progress.local_bytes = self.local_bytes
        progress.task_s = self.task_s
        progress.spilled_bytes = self.spilled_bytes
        progress.rows_quarantined = self.rows_quarantined
        progress.slots_used = len(self._slots)


def rows_quarantined(parts: Iterable[Quarantined]) -> int:
    """Rows that the functions of a task failed on."""
    return sum(part.rows for part in parts)


def _bytes_of(parts: Iterable[Quarantined]) -> int:
    return sum(len(part.arrow_stream) for part in parts)


def skew_of(rows: Sequence[int]) -> float:
    """The largest part's rows by the mean; 0 where there are no rows."""
    total = sum(rows)
    return max(rows) * len(rows) / total if total else 0.0


def part_kept(reply: RunTaskReply) -> RunTaskReply:
    """What is asked for later. Sums per partition are not: thousands of tasks have thousands of them."""
    result = reply.result if reply.HasField("result") else None
    return RunTaskReply(
        rows_in=reply.rows_in,
        rows_out=reply.rows_out,
        placement_digest=reply.placement_digest,
        written=reply.written,
        result=result,
        quarantined=reply.quarantined,
        key_sample=reply.key_sample,
    )


def are_unlike(stage: Stage, before: RunTaskReply, now: RunTaskReply, *, repeatable: bool) -> bool:
    """Whether two attempts have not made the same of a split. A repeatable stage needs no digest, but the number of
    rows is looked at all the same.
    """
    if not repeatable:
        return _identity_of(before) != _identity_of(now)
    # Into how many partial groups rows are put may go by their order, and a shuffle does not keep that.
    parts = (step for step in stage.steps if isinstance(step, Aggregate) and step.each_row is not None)
    return not (stage.reads and any(parts)) and before.rows_out != now.rows_out


def _identity_of(reply: RunTaskReply) -> tuple[int, int, int]:
    return reply.rows_out, reply.placement_digest, rows_quarantined(reply.quarantined)
