"""Partitions read piece by piece in the order of their rows, and parts that are published as they grow."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from sabot.errors import UsageError
from sabot.shuffle import ShuffleTransport
from sabot.shuffle.partitioning import HashPartitioning
from tests.shuffle.spilling import IDLE_S, PARTITIONS, SCHEMA, MiB, fill, noisy_rows, small_transport

MEMORY = 24 * MiB


@pytest.fixture
def transport(tmp_path: Path) -> Iterator[ShuffleTransport]:
    with small_transport([tmp_path / "spill"], memory=MEMORY) as made:
        yield made


def test_a_partition_on_disk_and_in_memory_is_read_in_order_piece_by_piece(
    transport: ShuffleTransport, rng: random.Random
) -> None:
    fill(transport, "s", 12, rng)
    open_partition, attempts = transport.server.open_partition, [(0, 0)]
    pieces = 0
    for partition in range(PARTITIONS):
        whole = open_partition("s", partition, attempts=attempts).all(IDLE_S)
        opened = open_partition("s", partition, attempts=attempts, loaded_bytes_max=MiB)
        assert opened.arrange()
        batches = []
        for piece in opened.pieces(IDLE_S):
            pieces += 1
            assert sum(batch.nbytes for batch in piece) < 6 * MiB  # what is loaded, and what was in memory
            batches += piece
        assert pa.Table.from_batches(batches) == whole
        assert (opened.rows, opened.content_sum) == (whole.num_rows, opened.content_sum)
    assert pieces > PARTITIONS


def test_rows_of_tasks_that_lie_on_disk_together_are_said_to_be_in_no_order(
    transport: ShuffleTransport, rng: random.Random
) -> None:
    transport.open_shuffle("s", num_partitions=1, owners=[transport.address], schema=SCHEMA)
    partitioning = HashPartitioning(("key",))
    writers = [transport.attempt_writer("s", task=task, attempt=0, partitioning=partitioning) for task in range(2)]
    keys: list[list[int]] = [[], []]
    for number in range(8):
        for task, writer in enumerate(writers):
            rows = noisy_rows((2 * number + task) * 10_000, 10_000, rng)
            keys[task] += rows["key"].to_pylist()
            writer.write([rows])
            assert transport.server.native.wait_spilled(IDLE_S)
    for writer in writers:
        writer.finish(timeout_s=10)
    both = transport.server.open_partition("s", 0, attempts=[(0, 0), (1, 0)], loaded_bytes_max=MiB)
    assert not both.arrange()
    placed = sorted((place, batch["key"].to_pylist()) for place, batch in both.placed_pieces(IDLE_S))
    assert [key for _, piece in placed for key in piece] == keys[0] + keys[1]
    for task in range(2):
        alone = transport.server.open_partition("s", 0, attempts=[(task, 0)], loaded_bytes_max=MiB)
        assert alone.arrange()
        assert [key for piece in alone.pieces(IDLE_S) for rows in piece for key in rows["key"].to_pylist()] == keys[
            task
        ]


def test_a_part_of_twice_the_memory_is_published_as_it_grows(transport: ShuffleTransport, rng: random.Random) -> None:
    server, keys = transport.server, []
    for number in range(18):
        rows = noisy_rows(number * 20_000, 20_000, rng)
        keys += rows["key"].to_pylist()
        server.add_published("job/result", 3, [rows], SCHEMA)
        assert server.native.wait_spilled(IDLE_S)
    with pytest.raises(UsageError, match="Nothing is published as part 3"):
        server.find("job/result", 3)
    published = server.finish_published("job/result", 3)
    assert published.rows == len(keys)
    assert [key for batch in server.find("job/result", 3) for key in batch["key"].to_pylist()] == keys
    ledger = server.native.ledger
    assert ledger.snapshot()["peak"] <= MEMORY
    with pytest.raises(UsageError, match="is published"):
        server.add_published("job/result", 3, [noisy_rows(0, 1, rng)], SCHEMA)
    transport.drop("job")
    assert server.native.stats()["published_bytes"] == 0


def test_a_part_that_is_abandoned_was_never_there(transport: ShuffleTransport, rng: random.Random) -> None:
    server = transport.server
    server.add_published("job/result", 0, [noisy_rows(0, 1000, rng)], SCHEMA)
    server.native.abandon("job/result", 0)
    assert server.native.stats()["published_bytes"] == 0
    with pytest.raises(UsageError, match="Nothing was added"):
        server.finish_published("job/result", 0)
    server.publish("job/result", 0, [noisy_rows(0, 10, rng)], SCHEMA)
    server.native.abandon("job/result", 0)  # no more, once it is published
    assert server.find("job/result", 0).read_all().num_rows == 10
