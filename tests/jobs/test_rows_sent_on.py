"""Rows that lie at an agent which leaves come to their new owners as they were, out of memory or from disk."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from sabot.agent.tasks.rows_sent_on import send_on
from sabot.agent.tasks.slot_calls import SlotCalls
from sabot.dataflow.stage import StoredSplit
from sabot.errors import ShuffleIntegrityError
from sabot.shuffle import ShuffleTransport
from sabot.shuffle.attempts import AttemptWriter
from sabot.shuffle.partitioning import HashPartitioning, Partitioning, RoundRobinPartitioning
from sabot.slots import TaskSlotManager
from tests.shuffle.spilling import SCHEMA, noisy_rows, small_transport

SHUFFLE = "j/0"
PARTITIONS = 5
ALL = frozenset(range(PARTITIONS))
TASKS = 3


@contextmanager
def pair(folder: Path) -> Iterator[tuple[ShuffleTransport, ShuffleTransport]]:
    """One with little memory, which owns everything, and another."""
    with small_transport([folder]) as leaver, ShuffleTransport() as taker:
        owners = [leaver.address, taker.address]
        for transport in (leaver, taker):
            transport.open_shuffle(
                SHUFFLE, num_partitions=PARTITIONS, owners=owners, owner_of=(0,) * PARTITIONS, schema=SCHEMA
            )
        yield leaver, taker


def writer_of(transport: ShuffleTransport, task: int, partitioning: Partitioning, *, again: bool) -> AttemptWriter:
    return transport.attempt_writer(
        SHUFFLE,
        task=task,
        attempt=int(again),
        partitioning=partitioning,
        partitions=ALL if again else None,
    )


def fill(transport: ShuffleTransport, partitioning: Partitioning, rng: random.Random) -> pa.Table:
    """More than its memory has room for, and nothing at all in the last task; all the rows, keys in order."""
    written = []
    for task in range(TASKS):
        writer = writer_of(transport, task, partitioning, again=False)
        for number in range(3 if task < TASKS - 1 else 0):
            written.append(noisy_rows((3 * task + number) * 20_000, 20_000, rng))
            writer.write(written[-1:])
            assert transport.server.native.wait_spilled(30.0)
        writer.finish(timeout_s=10)
    return pa.Table.from_batches(written)


def sums_of(transport: ShuffleTransport, attempt: int) -> list[tuple[int, int]]:
    """Rows and content sum of each partition."""
    attempts = [(task, attempt) for task in range(TASKS)]
    reads = (transport.read_partition(SHUFFLE, partition, attempts=attempts) for partition in range(PARTITIONS))
    return [(read.rows, read.content_sum) for read in reads]


def hand_over(
    leaver: ShuffleTransport, taker: ShuffleTransport, partitioning: Partitioning, *, rows: int = 60_000
) -> None:
    for transport in (leaver, taker):
        owners = [leaver.address, taker.address]
        transport.reown(SHUFFLE, epoch=1, owners=owners, owner_of=(1,) * PARTITIONS, given_up=())
    with TaskSlotManager(1) as slots:
        for task in range(TASKS):
            calls = SlotCalls(slots, threading.Event(), morsel_bytes="auto", job_id="j")
            writer = writer_of(leaver, task, partitioning, again=True)
            split = StoredSplit(sent=((0, ALL),))
            reply = send_on(SHUFFLE, task, split, writer, calls, transport=leaver, timeout_s=30)
            calls.close()
            assert reply.rows_out == sum(part.rows for part in reply.sent) == (rows if task < TASKS - 1 else 0)


@pytest.mark.parametrize(
    "partitioning", [HashPartitioning(("key",)), RoundRobinPartitioning()], ids=["hash", "in turn"]
)
def test_every_partition_has_the_same_rows_at_its_new_owner(
    tmp_path: Path, rng: random.Random, partitioning: Partitioning
) -> None:
    with pair(tmp_path) as (leaver, taker):
        written = fill(leaver, partitioning, rng)
        assert leaver.stats()["chunks_spilled"] > 0 < leaver.stats()["stored_bytes"]
        sums = sums_of(leaver, attempt=0)
        hand_over(leaver, taker, partitioning)
        assert sums_of(taker, attempt=1) == sums
        attempts = [(task, 1) for task in range(TASKS)]
        there = [taker.read_partition(SHUFFLE, part, attempts=attempts).table for part in range(PARTITIONS)]
        assert all(table["key"].to_pylist() == sorted(table["key"].to_pylist()) for table in there)
        assert pa.concat_tables(there).sort_by("key").equals(written)


def test_rows_that_are_lost_on_the_way_are_missed(
    tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_but_one(self: AttemptWriter, partition: int, batches: list[pa.RecordBatch]) -> None:
        right(self, partition, [batches[0].slice(1), *batches[1:]])

    right = AttemptWriter.write_to
    monkeypatch.setattr(AttemptWriter, "write_to", all_but_one)
    with pair(tmp_path) as (leaver, taker):
        fill(leaver, HashPartitioning(("key",)), rng)
        with pytest.raises(ShuffleIntegrityError, match=f"shuffle {SHUFFLE}, partition 0: what task 0 sent"):
            hand_over(leaver, taker, HashPartitioning(("key",)))


def test_partitions_without_rows_are_handed_over_as_empty(tmp_path: Path) -> None:
    with pair(tmp_path) as (leaver, taker):
        for task in range(TASKS):
            writer_of(leaver, task, RoundRobinPartitioning(), again=False).finish(timeout_s=10)
        hand_over(leaver, taker, RoundRobinPartitioning(), rows=0)
        assert sums_of(taker, attempt=1) == [(0, 0)] * PARTITIONS
