"""The sending side of a task: one attempt's rows, partitioned in a slot, confirmed by every owner or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import pyarrow as pa

from sabot.errors import PeerLost
from sabot.native._native import NativeSender, SlotAccount
from sabot.shuffle.receipts import AttemptSummary, PartitionSum

WRITE_TIMEOUT_S = 300.0
_CHECK_EVERY_S = 0.1


def summary_of(sender: NativeSender) -> AttemptSummary:
    """What `sender` has sent so far."""
    sums, rows, wire_bytes, local_bytes, placement_digest = sender.summary()
    return AttemptSummary(
        sums=tuple(PartitionSum(partition=p, rows=n, content_sum=s, num_bytes=b) for p, n, s, b in sums),
        rows=rows,
        wire_bytes=wire_bytes,
        local_bytes=local_bytes,
        placement_digest=placement_digest,
    )


def owners_of_replay(
    agents: Sequence[str], owner_of: Sequence[int], partitions: Collection[int] | None
) -> tuple[list[str], list[int]]:
    """Who must confirm an attempt that sends `partitions` (None: all), and the owner of each partition among them.

    A partition that is not sent has an owner beyond them.
    """
    wanted = range(len(owner_of)) if partitions is None else partitions
    needed = sorted({owner_of[partition] for partition in wanted})
    place = {owner: index for index, owner in enumerate(needed)}
    placed = [len(needed)] * len(owner_of)
    for partition in wanted:
        placed[partition] = place[owner_of[partition]]
    return [agents[owner] for owner in needed], placed


def cut(batch: pa.RecordBatch, bytes_max: int) -> list[pa.RecordBatch]:
    """Slices of about `bytes_max`; one batch, perhaps without rows, at least."""
    pieces = max(1, -(-batch.nbytes // bytes_max))
    rows_max = max(1, -(-batch.num_rows // pieces))
    return [batch.slice(start, rows_max) for start in range(0, max(1, batch.num_rows), rows_max)]


def await_confirmation(
    sender: NativeSender, shuffle_id: str, timeout_s: float, check: Callable[[], None] | None = None
) -> None:
    """Blocks until every owner has confirmed its manifest; PeerLost names those that have not at the deadline.

    `check` is called now and then, and ends the wait by raising.
    """
    deadline = time.monotonic() + timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        if sender.wait_confirmed(left_s if check is None else min(left_s, _CHECK_EVERY_S)):
            return
        if check is not None:
            check()
    if sender.wait_confirmed(0.0):
        return
    waited_for = ", ".join(sender.owners_waited_for())
    raise PeerLost(
        f"Shuffle {shuffle_id} was not confirmed within {timeout_s:g} s by {waited_for}. "
        "Check that these agents run and have started the shuffle.",
        shuffle=shuffle_id,
        address=waited_for,
    )


class AttemptWriter:
    """Rows of one attempt on their way, by the owner table of `epoch`. Thread-safe; `write` blocks its caller, never a
    slot.
    """

    def __init__(
        self,
        sender: NativeSender,
        *,
        shuffle_id: str,
        epoch: int,
        slots: SlotAccount | None,
        await_disk: Callable[[float], None],
        chunk_bytes_max: int,
    ) -> None:
        self.epoch = epoch
        self._sender = sender
        self._await_disk = await_disk
        self._shuffle_id = shuffle_id
        self._slots = slots
        self._chunk_bytes_max = chunk_bytes_max

    def write(self, batches: Sequence[pa.RecordBatch], *, timeout_s: float = WRITE_TIMEOUT_S) -> None:
        """Partitions the rows in one slot and hands the chunks to their owners' outboxes. LimitReached where no slot
        has come to it within `timeout_s`; then nothing of these rows is sent, and they may be given again.
        """
        if batches:
            self._await_disk(timeout_s)
            self._sender.scatter_and_send(batches, self._slots, timeout_s)

    def write_to(
        self, partition: int, batches: Sequence[pa.RecordBatch], *, timeout_s: float = WRITE_TIMEOUT_S
    ) -> None:
        """Hands rows to the partition's owner as they are: rows that an attempt of the same task sent there before."""
        for batch in batches:
            for piece in cut(batch, self._chunk_bytes_max):
                self._await_disk(timeout_s)
                self._sender.send_again(piece, partition)

    def finish(self, *, timeout_s: float, check: Callable[[], None] | None = None) -> AttemptSummary:
        """Sends the manifests and waits until every owner has confirmed: stored, verified, complete.

        `check` is called ten times a second, and ends the wait by raising.
        """
        self._sender.finish()
        await_confirmation(self._sender, self._shuffle_id, timeout_s, check)
        return summary_of(self._sender)

    def abort(self) -> None:
        """Gives the attempt up: what owners hold of it is never read."""
        self._sender.abort()
