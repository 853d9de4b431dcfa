"""Outboxes beyond the memory limit: what waits for a peer that has stopped goes to disk, and others get their rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.shuffle import ShuffleTransport
from tests.shuffle.faulty_proxy import FaultyProxy
from tests.shuffle.spilling import IDLE_S, MiB, files_in, small_transport

ROWS = (4 * MiB) // 8
BATCHES = 30
MEMORY = 64 * MiB
SLOW, QUICK = 1, 2


class Three:
    """A sender with little memory, a peer behind a wire that may stall, and one that takes all at once."""

    def __init__(
        self, sender: ShuffleTransport, slow: ShuffleTransport, quick: ShuffleTransport, wire: FaultyProxy
    ) -> None:
        self.sender, self.slow, self.quick, self.wire = sender, slow, quick, wire
        self._numbers = pa.array(range(ROWS))
        for transport in (sender, slow, quick):
            slow_address = wire.address if transport is sender else slow.address
            transport.start_shuffle("s", 3, [sender.address, slow_address, quick.address])

    def send(self, number: int) -> None:
        """4 MiB for the slow one, out of the sender's memory, and each third time as much for the quick one."""
        for partition in (SLOW, QUICK) if number % 3 == 0 else (SLOW,):
            rows = pc.add(self._numbers, number * ROWS, memory_pool=self.sender.ledger.pool)
            self.sender.send_partition("s", partition, pa.record_batch({"x": rows}))

    def finish(self) -> None:
        for transport in (self.sender, self.slow, self.quick):
            transport.finish_shuffle("s")

    def end(self) -> None:
        for transport in (self.sender, self.slow, self.quick):
            transport.end_shuffle("s")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Three]:
    with (
        small_transport([tmp_path / "spilled"], memory=MEMORY) as sender,
        ShuffleTransport() as slow,
        ShuffleTransport() as quick,
        FaultyProxy(slow.address) as wire,
    ):
        yield Three(sender, slow, quick, wire)


def numbers_of(transport: ShuffleTransport, partition: int) -> list[tuple[int, int]]:
    """Where each batch of the partition begins, and how many rows it has; each is checked to rise by one."""
    starts = []
    for batch in transport.receive_partition("s", partition, timeout_s=60.0):
        rows = batch["x"]
        assert pc.all(pc.equal(pc.pairwise_diff(rows).drop_null(), 1)).as_py()
        starts.append((rows[0].as_py(), len(rows)))
    return sorted(starts)


def test_chunks_for_a_stopped_peer_go_to_disk_and_the_others_get_theirs(three: Three, tmp_path: Path) -> None:
    three.wire.stall()
    for number in range(BATCHES):
        three.send(number)
        assert three.sender.server.native.wait_spilled(IDLE_S)
    three.finish()
    assert numbers_of(three.quick, QUICK) == [(n * ROWS, ROWS) for n in range(0, BATCHES, 3)]
    told = three.sender.stats()
    assert told["spilled_bytes_total"] > 0
    assert three.sender.ledger.snapshot()["peak"] <= MEMORY
    assert three.sender.ledger.snapshot()["outbox"] < BATCHES * 4 * MiB
    three.wire.flow()
    assert numbers_of(three.slow, SLOW) == [(n * ROWS, ROWS) for n in range(BATCHES)]
    three.end()
    assert three.sender.ledger.snapshot()["outbox"] == 0
    assert not [file for file in files_in(tmp_path) if file.stat().st_size]


def test_chunks_that_come_while_the_memory_is_full_and_nothing_else_can_be_freed_go_to_disk(three: Three) -> None:
    three.wire.stall()
    three.sender.ledger.reserve_task(MEMORY)
    assert three.sender.server.native.wait_spilled(IDLE_S)
    for number in range(4):  # two of them are on their way, and stay in memory
        three.send(number)
    assert three.sender.server.native.wait_spilled(IDLE_S)
    assert three.sender.stats()["spilled_bytes_total"] > 0
    three.sender.ledger.unreserve_task(MEMORY)
    three.end()


def test_shuffle_that_ends_with_chunks_on_disk_leaves_no_file(three: Three, tmp_path: Path) -> None:
    three.wire.stall()
    for number in range(BATCHES):
        three.send(number)
        assert three.sender.server.native.wait_spilled(IDLE_S)
    assert [file for file in files_in(tmp_path / "spilled") if file.stat().st_size]
    three.end()
    assert not [file for file in files_in(tmp_path) if file.stat().st_size]
