"""The batches of one task that functions failed on: taken out of the rows, and told with the task's account.

They stay with whatever counts of the task: an attempt that is not visible takes its own along.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.ipc

from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.dataflow.function_steps import MapBatches
from sabot.dataflow.quarantine import (
    QUARANTINE_BYTES_MAX,
    BatchFailure,
    failure_of,
    quarantined_rows,
)
from sabot.errors import LimitReached
from sabot.wire.agent_pb2 import Quarantined, RunTaskReply


class TaskQuarantine:
    """Used by the task's thread; `bytes_max` is what it keeps, compressed."""

    def __init__(self, *, stage_id: int, task: int, calls: SlotCalls, bytes_max: int = QUARANTINE_BYTES_MAX) -> None:
        self._stage_id = stage_id
        self._task = task
        self._calls = calls
        self._bytes_max = bytes_max
        self._kept: list[_Kept] = []

    def without_failed(
        self, step: MapBatches, stream: Iterator[list[pa.RecordBatch]]
    ) -> Iterator[list[pa.RecordBatch]]:
        """The answers of the step's function; batches that it failed on are kept here."""
        kept = _Kept(step.name, position=len(self._kept))
        self._kept.append(kept)
        return map(partial(self._without_failed, kept), stream)

    def _without_failed(self, kept: _Kept, batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
        answers = []
        for batch in batches:
            failure = failure_of(batch)
            if failure is None:
                answers.append(batch)
            else:
                self._calls.call(partial(self._keep, kept, batch, failure))
        return answers

    def account(self, reply: RunTaskReply) -> None:
        """Tell what is kept."""
        for kept in self._kept:
            if kept.rows:
                reply.quarantined.append(kept.message(self._stage_id, self._task))

    def _keep(self, kept: _Kept, batch: pa.RecordBatch, failure: BatchFailure) -> None:
        kept.add(quarantined_rows(batch, failure, stage=self._stage_id, task=self._task))
        if sum(each.size_bytes for each in self._kept) > self._bytes_max:
            raise _too_much(kept, self._stage_id, self._bytes_max, failure.message)


class _Kept:
    """The rows of one function, as a compressed stream."""

    def __init__(self, function: str, position: int) -> None:
        self.function = function
        self.rows = 0
        self._position = position
        self._sink = pa.BufferOutputStream()
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None

    @property
    def size_bytes(self) -> int:
        return int(self._sink.tell())

    def add(self, batch: pa.RecordBatch) -> None:
        if self._writer is None:
            options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
            self._writer = pa.ipc.new_stream(self._sink, batch.schema, options=options)
        self._writer.write_batch(batch)
        self.rows += batch.num_rows

    def message(self, stage_id: int, task: int) -> Quarantined:
        assert self._writer is not None
        self._writer.close()
        return Quarantined(
            stage_id=stage_id,
            task=task,
            position=self._position,
            rows=self.rows,
            arrow_stream=self._sink.getvalue().to_pybytes(),
        )


def _too_much(kept: _Kept, stage_id: int, bytes_max: int, last: str) -> LimitReached:
    return LimitReached(
        f"the batches that {kept.function} failed on in stage {stage_id} measure more than {bytes_max:,} bytes, which "
        "is what a stage keeps of them; smaller batches (batch_rows=) keep fewer rows around a fault, and what fails "
        f"that often is to be mended: the last time it said {last[:500]!r}",
        function=kept.function,
    )
