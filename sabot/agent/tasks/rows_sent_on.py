"""Sends on what a task has sent to this agent, which leaves its job: to the partitions' new owners, as it is."""

from __future__ import annotations

from functools import partial

from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.dataflow.stage import StoredSplit
from sabot.errors import ShuffleIntegrityError
from sabot.shuffle.attempts import AttemptWriter
from sabot.shuffle.transport import ShuffleTransport
from sabot.wire.agent_pb2 import PartitionSum, RunTaskReply


def send_on(
    shuffle_id: str,
    task: int,
    split: StoredSplit,
    writer: AttemptWriter,
    calls: SlotCalls,
    *,
    transport: ShuffleTransport,
    timeout_s: float,
) -> RunTaskReply:
    """Ends when the new owners have confirmed it. ShuffleIntegrityError unless they were sent what the manifests of the
    earlier attempts promise, by rows and content sum.
    """
    reply, promised = RunTaskReply(), {}
    try:
        for attempt, partitions in split.sent:
            for partition in sorted(partitions):
                calls.check_cancelled()
                read = transport.read_partition(shuffle_id, partition, attempts=[(task, attempt)], timeout_s=timeout_s)
                if read.rows:
                    calls.call(partial(writer.write_to, partition, read.table.to_batches()))
                    promised[partition] = (read.rows, read.content_sum)
                reply.rows_in += read.rows
        summary = writer.finish(timeout_s=timeout_s, check=calls.check_cancelled)
    except BaseException:
        writer.abort()
        raise
    for part in summary.sums:
        if promised.pop(part.partition, None) != (part.rows, part.content_sum):
            raise _wrong(shuffle_id, part.partition, task)
        reply.sent.append(
            PartitionSum(
                partition=part.partition, rows=part.rows, content_sum=part.content_sum, num_bytes=part.num_bytes
            )
        )
    if promised:
        raise _wrong(shuffle_id, min(promised), task)
    reply.rows_out, reply.wire_bytes, reply.local_bytes = summary.rows, summary.wire_bytes, summary.local_bytes
    reply.slots.extend(calls.used.slots())
    return reply


def _wrong(shuffle_id: str, partition: int, task: int) -> ShuffleIntegrityError:
    return ShuffleIntegrityError(
        f"shuffle {shuffle_id}, partition {partition}: what task {task} sent has changed on its way; it is made anew",
        shuffle=shuffle_id,
        partition=partition,
        task=task,
    )
