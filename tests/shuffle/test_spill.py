"""Rows beyond the memory limit go to disk and come back audited; what lies there is theirs alone and goes with them."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from sabot.errors import LimitReached, ShuffleIntegrityError, UsageError
from sabot.native._native import Ledger, ticket_of
from sabot.shuffle import ShuffleClient, ShuffleServer, ShuffleTransport
from tests.shuffle.spilling import (
    IDLE_S,
    PARTITIONS,
    SCHEMA,
    MiB,
    files_in,
    fill,
    noisy_rows,
    read_all,
    small_transport,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spill"


@pytest.fixture
def transport(folder: Path) -> Iterator[ShuffleTransport]:
    with small_transport([folder]) as made:
        yield made


def test_rows_of_three_times_the_limit_come_back_as_they_were(
    transport: ShuffleTransport, folder: Path, rng: random.Random
) -> None:
    written = fill(transport, "s", 20, rng)
    assert written.nbytes > 3 * 16 * MiB
    ledger = transport.server.native.ledger
    assert ledger.snapshot()["peak"] <= 16 * MiB
    assert read_all(transport, "s") == written.combine_chunks()
    assert ledger.snapshot()["peak"] <= 16 * MiB


def test_what_lies_on_disk_of_a_partition_is_told(
    transport: ShuffleTransport, folder: Path, rng: random.Random
) -> None:
    native = transport.server.native
    fill(transport, "small", 1, rng)
    assert [native.spilled_bytes_of("small", partition) for partition in range(PARTITIONS)] == [0] * PARTITIONS
    written = fill(transport, "s", 20, rng)
    spilled = sum(native.spilled_bytes_of("s", partition) for partition in range(PARTITIONS))
    stored = sum(native.stored_bytes_of("s", partition) for partition in range(PARTITIONS))
    assert 2 * 16 * MiB < spilled < stored < 1.2 * written.nbytes
    assert native.spilled_bytes_of("never", 0) == 0


def test_a_shuffle_has_one_file_in_each_folder(tmp_path: Path, rng: random.Random) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    with small_transport(folders) as transport:
        written = fill(transport, "s", 12, rng)
        assert [len(files_in(folder)) for folder in folders] == [1, 1]
        assert read_all(transport, "s") == written.combine_chunks()


def test_no_file_outlives_its_shuffle_and_no_folder_its_agent(
    transport: ShuffleTransport, folder: Path, rng: random.Random
) -> None:
    fill(transport, "job/1", 8, rng)
    fill(transport, "job/2", 8, rng)
    assert len(files_in(folder)) == 2
    transport.drop("job/1")
    assert len(files_in(folder)) == 1
    transport.drop("job")
    assert files_in(folder) == []
    assert transport.stats()["spill_bytes"] == 0
    assert len(list(folder.iterdir())) == 1
    transport.close()
    assert list(folder.iterdir()) == []


def test_a_reader_goes_on_when_its_shuffle_ends(transport: ShuffleTransport, folder: Path, rng: random.Random) -> None:
    fill(transport, "s", 12, rng)
    opened = transport.server.open_partition("s", 0, attempts=[(0, 0)], loaded_bytes_max=1)
    pieces = opened.pieces(10.0)
    next(pieces)
    transport.drop("s")
    assert files_in(folder) == []
    assert sum(len(piece) for piece in pieces) > 0
    assert opened.rows > 0


def test_rows_read_while_they_are_being_written_to_disk_are_whole(
    transport: ShuffleTransport, rng: random.Random
) -> None:
    transport.start_shuffle("s", 1, [transport.address])
    first = noisy_rows(0, 20_000, rng)
    transport.send_partition("s", 0, first)
    transport.finish_shuffle("s")
    fill(transport, "other", 3, rng)
    reader = transport.receive_partition("s", 0)
    fill(transport, "pressure", 8, rng)  # spills the first shuffle, which is the coldest, under its reader
    assert transport.stats()["chunks_spilled"] > 0
    assert reader.read_all().combine_chunks() == pa.Table.from_batches([first])
    assert transport.receive_partition("s", 0).read_all().sort_by("key") == pa.Table.from_batches([first])


def flip_bit(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def flip_noise(path: Path, written: pa.Table) -> None:
    """Changes one bit of a value that lies in the file as it is, far from what the content sums of task 0 cover."""
    data = path.read_bytes()
    for value in written["noise"].to_pylist():
        if (at := data.find(value)) >= 0:
            return flip_bit(path, at + 60)
    pytest.fail("no value of the noise is in the file")


def test_flipped_bit_on_disk_is_caught_and_names_shuffle_partition_task_and_agent(
    transport: ShuffleTransport, folder: Path, rng: random.Random
) -> None:
    written = fill(transport, "s", 8, rng)
    (path,) = files_in(folder)
    flip_noise(path, written)
    with pytest.raises(ShuffleIntegrityError, match="changed there, as their checksum shows") as caught:
        read_all(transport, "s")
    facts = caught.value.facts
    assert (facts["shuffle"], facts["task"], facts["agent"]) == ("s", 0, transport.address)
    assert 0 <= facts["partition"] < PARTITIONS


def test_without_the_check_a_flipped_bit_on_disk_would_be_read(folder: Path, rng: random.Random) -> None:
    with ShuffleServer(ledger=Ledger(16 * MiB), spill_dirs=[str(folder)], verify_loads=False) as server:
        noise = noisy_rows(0, 100_000, rng)
        server.publish("p", 0, [noise], SCHEMA)
        assert server.native.wait_spilled(IDLE_S)
        (path,) = files_in(folder)
        flip_noise(path, pa.Table.from_batches([noise]))
        assert server.find("p", 0).read_all() != pa.Table.from_batches([noise])


def test_file_that_was_cut_short_is_caught(transport: ShuffleTransport, folder: Path, rng: random.Random) -> None:
    fill(transport, "s", 8, rng)
    (path,) = files_in(folder)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(ShuffleIntegrityError, match=r"too short|changed there"):
        read_all(transport, "s")


def test_full_disk_fails_the_shuffle_by_name_and_the_agent_goes_on(
    transport: ShuffleTransport, folder: Path, rng: random.Random
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MiB, before[1]))
    try:
        with pytest.raises(LimitReached) as caught:
            fill(transport, "s", 20, rng)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.facts["limit"] == "spill.dirs"
    assert caught.value.facts["folder"].startswith(str(folder))
    assert files_in(folder) == []
    assert transport.server.native.ledger.snapshot()["store"] == 0
    written = fill(transport, "next", 8, rng)
    assert read_all(transport, "next") == written.combine_chunks()


def test_published_rows_that_a_full_disk_does_not_take_fail_what_follows_under_their_name(
    transport: ShuffleTransport, folder: Path, rng: random.Random
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(LimitReached) as caught:
            for index in range(20):
                transport.publish("p", index, [noisy_rows(0, 10_000, rng)], SCHEMA)
                assert transport.server.native.wait_spilled(IDLE_S)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.facts["limit"] == "spill.dirs"
    assert caught.value.facts["folder"].startswith(str(folder))
    transport.drop("p")
    transport.publish("p", 0, [noisy_rows(0, 10, rng)], SCHEMA)
    assert files_in(folder) == []


def test_published_rows_that_a_full_disk_refused_go_there_when_room_is_asked_for_and_the_disk_has_some(
    transport: ShuffleTransport, folder: Path, rng: random.Random
) -> None:
    native, ledger = transport.server.native, transport.server.native.ledger
    batches = [noisy_rows(0, 10_000, rng) for _ in range(20)]
    kept = 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(LimitReached):
            for index, batch in enumerate(batches):
                transport.publish("p", index, [batch], SCHEMA)
                kept += 1
                assert native.wait_spilled(IDLE_S)
        in_memory = ledger.snapshot()["results"]
        assert kept > 1 and in_memory > 8 * MiB and not sum(path.stat().st_size for path in files_in(folder))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    end_s = time.monotonic() + IDLE_S
    while ledger.snapshot()["results"] > in_memory // 2:
        assert time.monotonic() < end_s, "nothing goes to disk"
        assert not ledger.try_reserve_task(11 * MiB) or ledger.unreserve_task(11 * MiB) is None
        assert native.wait_spilled(IDLE_S)
    ledger.withdraw_tasks()
    assert len(files_in(folder)) == 1
    transport.publish("p", kept, [batches[kept]], SCHEMA)  # what follows under the name is taken again
    for index in range(kept + 1):
        read = transport.fetch(transport.address, "p", index).read_all()
        assert read == pa.Table.from_batches([batches[index]])
    transport.drop("p")
    assert files_in(folder) == []


def test_limit_of_the_spilled_bytes_is_kept_and_named(folder: Path, rng: random.Random) -> None:
    with small_transport([folder], spill_bytes_max=8 * MiB) as transport:
        with pytest.raises(LimitReached, match=r"Raise it, or memory\.bytes_max") as caught:
            fill(transport, "s", 20, rng)
        assert caught.value.facts["limit"] == "spill.bytes_max"
        assert files_in(folder) == []
        with pytest.raises(LimitReached):  # not read as if nothing had been lost
            read_all(transport, "s")
        transport.drop("s")


def test_folder_that_is_full_gives_way_to_the_next(tmp_path: Path, rng: random.Random) -> None:
    blocked, free = tmp_path / "blocked", tmp_path / "free"
    with small_transport([blocked, free]) as transport:
        (own,) = blocked.iterdir()
        own.rmdir()  # nothing can be written there any more
        written = fill(transport, "s", 12, rng)
        assert len(files_in(free)) == 1
        assert read_all(transport, "s") == written.combine_chunks()


def test_published_rows_are_read_again_from_disk_here_and_by_others(
    transport: ShuffleTransport, folder: Path, rng: random.Random
) -> None:
    batches = [noisy_rows(i * 20_000, 20_000, rng) for i in range(8)]
    for index, batch in enumerate(batches):
        transport.publish("job/result", index, [batch], SCHEMA)
        assert transport.server.native.wait_spilled(IDLE_S)
    assert len(files_in(folder)) == 1
    with ShuffleClient() as client:
        for _ in range(2):
            for index, batch in enumerate(batches):
                assert transport.fetch(transport.address, "job/result", index).read_all() == pa.Table.from_batches(
                    [batch]
                )
                pulled = client.fetch_ticket(transport.address, ticket_of("job/result", index))
                assert pulled.read_all() == pa.Table.from_batches([batch])
    transport.drop("job")
    assert files_in(folder) == []


def test_spilled_partition_is_pulled_by_any_flight_client(folder: Path, rng: random.Random) -> None:
    batches = [noisy_rows(i * 20_000, 20_000, rng) for i in range(20)]
    with small_transport([folder], memory=40 * MiB) as transport, ShuffleClient() as client:
        transport.start_shuffle("s", 1, [transport.address])
        for batch in batches:
            transport.send_partition("s", 0, batch)
            assert transport.server.native.wait_spilled(IDLE_S)
        transport.finish_shuffle("s")
        assert transport.stats()["chunks_spilled"] > 0
        pulled = client.fetch_ticket(transport.address, ticket_of("s", 0, shuffle=True)).read_all()
    assert pulled.sort_by("key").combine_chunks() == pa.Table.from_batches(batches).combine_chunks()


def dictionary_rows(first: int, rng: random.Random) -> pa.RecordBatch:
    words = pa.array([rng.randbytes(40) for _ in range(500)])
    codes = pa.array([rng.randrange(500) for _ in range(60_000)], pa.int32())
    numbers = pa.array(range(first, first + 60_000), pa.int64())
    nested = pa.array([{"a": [i, i + 1]} for i in range(200)] * 300)
    return pa.record_batch({"key": numbers, "word": pa.DictionaryArray.from_arrays(codes, words), "nested": nested})


def test_dictionaries_and_nested_values_come_back_from_disk(folder: Path, rng: random.Random) -> None:
    batches = [dictionary_rows(i * 60_000, rng) for i in range(14)]
    with small_transport([folder], memory=24 * MiB) as transport:
        transport.start_shuffle("s", 1, [transport.address])
        for batch in batches:
            transport.send_partition("s", 0, batch)
            assert transport.server.native.wait_spilled(IDLE_S)
        transport.finish_shuffle("s")
        assert transport.stats()["chunks_spilled"] > 0
        read = [row for batch in transport.receive_partition("s", 0) for row in batch.to_pylist()]
    assert sorted(read, key=lambda row: row["key"]) == [row for batch in batches for row in batch.to_pylist()]


def test_stored_rows_are_counted_without_what_they_were_a_part_of(
    transport: ShuffleTransport, rng: random.Random
) -> None:
    transport.start_shuffle("s", 1, [transport.address])
    large = noisy_rows(0, 40_000, rng)
    transport.send_partition("s", 0, large.slice(10, 7))
    held = transport.server.native.ledger.snapshot()["store"]
    assert 7 * 120 <= held <= 7 * 200
    assert transport.stats()["stored_bytes"] == held
    transport.finish_shuffle("s")
    read = transport.receive_partition("s", 0).read_all()
    transport.drop("s")
    assert read["key"].to_pylist() == large["key"].to_pylist()[10:17]
    assert transport.server.native.ledger.snapshot()["store"] == held  # the reader has them still
    del read
    assert transport.server.native.ledger.snapshot()["store"] == 0


def test_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"spill folder .*/file/x cannot be used"):
        ShuffleTransport(spill_dirs=[str(tmp_path / "file" / "x")])
