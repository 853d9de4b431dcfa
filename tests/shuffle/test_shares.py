"""A share of a partition over the wire: by the words of docs/protocol.md, and whole and unchanged or not at all."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest
from pyarrow import flight

from sabot.errors import JobCancelled, PeerLost, PeerRefused, ShuffleIntegrityError
from sabot.native import _native
from sabot.shuffle import ShuffleClient, ShuffleServer
from tests.shuffle import wire

MakeServer = Callable[..., ShuffleServer]
MARK = struct.Struct("<4sB3xIIQQ")
SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.int64())])


def rows_of(task: int) -> pa.RecordBatch:
    return pa.record_batch({"k": [1, 2, 3], "v": [10 * task, 10 * task + 1, 10 * task + 2]}, SCHEMA)


def served(make_server: MakeServer, *, tasks: int, attempt: int = 0) -> ShuffleServer:
    """Every task has sent three rows to partition 1."""
    server = make_server()
    server.start_shuffle("a/s", 2, [server.address], senders=0, schema=SCHEMA)
    for task in range(tasks):
        header = wire.chunk("a/s", rows_of(task), 1, task=task, attempt=attempt)
        messages = [(header, rows_of(task)), (wire.manifest([header]), None)]
        assert [ack.code for ack in wire.put(server.address, messages, SCHEMA)] == [0, 0]
    return server


def fetch(address: str, attempts: list[int], *, share: tuple[int, int]) -> tuple[pa.Table, int]:
    with ShuffleClient() as client:
        read = client.fetch_share(address, "a/s", 1, attempts=attempts, share=share, key_columns=[])
        return read.table, read.content_sum


def test_plain_client_reads_a_share_and_its_marks(make_server: MakeServer) -> None:
    server = served(make_server, tasks=5)
    with flight.connect(f"grpc://{server.address}") as client:
        stream = list(client.do_get(flight.Ticket(b"sabot:1:share:a%2Fs:1:1:2:0*2")))
    assert [chunk.data for chunk in stream] == [rows_of(1), rows_of(3)]
    assert [MARK.unpack(chunk.app_metadata.to_pybytes()) for chunk in stream] == [
        (b"SBTS", 0, 1, 0, 3, _native.checksum_batch(rows_of(1))),
        (b"SBTS", 1, 3, 1, 6, _native.checksum_batch(rows_of(3))),
    ]


def test_shares_together_are_the_partition_and_their_sums_its_sum(make_server: MakeServer) -> None:
    server = served(make_server, tasks=5)
    whole = server.read_partition("a/s", 1, attempts=[(task, 0) for task in range(5)])
    parts = [fetch(server.address, [0] * 5, share=(index, 3)) for index in range(3)]
    assert pa.concat_tables([table for table, _ in parts]).sort_by("v") == whole.table.sort_by("v")
    assert sum(content_sum for _, content_sum in parts) % 2**64 == whole.content_sum


def test_only_the_attempts_that_count_are_given(make_server: MakeServer) -> None:
    server = served(make_server, tasks=2, attempt=7)
    assert fetch(server.address, [7, 7], share=(1, 2))[0] == pa.table(rows_of(1))
    with pytest.raises(PeerLost):
        fetch(server.address, [7, 6], share=(1, 2))


def test_share_of_no_task_is_empty(make_server: MakeServer) -> None:
    table, content_sum = fetch(served(make_server, tasks=1).address, [0], share=(1, 2))
    assert (table, content_sum) == (SCHEMA.empty_table(), 0)


@pytest.mark.parametrize(
    ("attempts", "share", "ticket"),
    [
        ([0] * 1000, (0, 4), "0:4:0*250"),
        ([0, 1, 1, 1, 0], (0, 1), "0:1:0*1,1*3,0*1"),
        ([5, 6, 5, 6], (1, 2), "1:2:6*2"),
        ([0], (1, 2), "1:2:"),
    ],
)
def test_ticket_tells_attempts_in_runs(attempts: list[int], share: tuple[int, int], ticket: str) -> None:
    assert _native.share_ticket_of("a/s", 1, attempts, share=share) == "sabot:1:share:a%2Fs:1:" + ticket


@pytest.mark.parametrize(
    "ticket",
    [
        "sabot:1:share:",
        "sabot:1:share:s:1:2:2:0*1",
        "sabot:1:share:s:1:0:0:0*1",
        "sabot:1:share:s:1:0:1:0",
        "sabot:1:share:s:1:0:1:0*2000000",
        "sabot:1:share:s:1:0:1:0*1048576,0*1",
        "sabot:1:share:s:1:0:1048576:0*1048576",
        "sabot:1:share:s:-1:0:1:0*1",
        "sabot:1:share:%zz:1:0:1:0*1",
    ],
)
def test_malformed_ticket_is_refused_with_the_right_form(make_server: MakeServer, ticket: str) -> None:
    with pytest.raises(pa.ArrowException, match=r"sabot:1:share:<id>:<partition>"):
        wire.get(make_server().address, ticket)


Marked = tuple[pa.RecordBatch, bytes]


def marked(task: int, sequence: int, rows: int, *, last: bool) -> Marked:
    batch = rows_of(task)
    return batch, MARK.pack(b"SBTS", last, task, sequence, rows, _native.checksum_batch(batch))


class Living(flight.FlightServerBase):
    """Answers pings."""

    def do_action(self, context: flight.ServerCallContext, action: flight.Action) -> list[flight.Result]:
        return [flight.Result(struct.pack("<4sHQ", b"SBTP", wire.VERSION, 7))]


class Sender(Living):
    """Sends what it was made with, whatever is asked for."""

    def __init__(self, batches: list[Marked]) -> None:
        self._batches = batches
        super().__init__("grpc://127.0.0.1:0")

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        return flight.GeneratorStream(SCHEMA, iter(self._batches))


FIRST, SECOND = marked(0, 0, 3, last=False), marked(1, 1, 6, last=True)
FORGED = pa.record_batch({"k": [1, 2, 3], "v": [10, 11, 13]}, SCHEMA)


def test_right_batches_are_taken() -> None:
    with Sender([FIRST, SECOND]) as sender:
        table, _ = fetch(f"127.0.0.1:{sender.port}", [0, 0], share=(0, 1))
    assert table == pa.Table.from_batches([rows_of(0), rows_of(1)])


@pytest.mark.parametrize(
    ("batches", "error"),
    [
        pytest.param([FIRST, (FORGED, SECOND[1])], ShuffleIntegrityError, id="changed"),
        pytest.param([SECOND], ShuffleIntegrityError, id="dropped"),
        pytest.param([FIRST, FIRST, SECOND], ShuffleIntegrityError, id="doubled"),
        pytest.param([FIRST], PeerLost, id="broken off"),
        pytest.param([(rows_of(0), b"SBTR" + MARK.pack(b"SBTS", 1, 0, 0, 3, 0)[4:])], PeerRefused, id="other mark"),
    ],
)
def test_rows_that_are_not_those_that_were_sent_are_never_given(batches: list[Marked], error: type[Exception]) -> None:
    with Sender(batches) as sender, pytest.raises(error):
        fetch(f"127.0.0.1:{sender.port}", [0, 0], share=(0, 1))


class Hanging(Living):
    """Sends one batch, and the next when told to."""

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()
        super().__init__("grpc://127.0.0.1:0")

    def do_get(self, context: flight.ServerCallContext, ticket: flight.Ticket) -> flight.GeneratorStream:
        def batches() -> Iterator[Marked]:
            yield FIRST
            self.asked.set()
            self.go_on.wait(30)

        return flight.GeneratorStream(SCHEMA, batches())


@pytest.mark.parametrize("whole", [True, False], ids=["its shuffle", "its owner"])
def test_pull_from_an_owner_that_hangs_ends_with(whole: bool) -> None:
    with Hanging() as owner, ShuffleClient() as client:
        ended: list[BaseException] = []
        address = f"127.0.0.1:{owner.port}"

        def pull() -> None:
            try:
                client.fetch_share(address, "a/s", 1, attempts=[0], share=(0, 1), key_columns=[])
            except (PeerLost, JobCancelled) as error:
                ended.append(error)

        thread = threading.Thread(target=pull)
        thread.start()
        assert owner.asked.wait(20)
        if whole:
            client.end_shuffle("a")
        else:
            client.end_pulls("a/s", "127.0.0.1:1")
            assert thread.is_alive()  # another's pulls go on
            while thread.is_alive():  # its first rows are there, and it is not known to be reading until a moment later
                client.end_pulls("a/s", address)
                thread.join(0.05)
        thread.join(20)
        owner.go_on.set()
        assert len(ended) == 1


def test_nothing_is_pulled_of_a_shuffle_that_has_ended(make_server: MakeServer) -> None:
    server = served(make_server, tasks=1)
    with ShuffleClient() as client:
        client.end_shuffle("a")
        with pytest.raises(JobCancelled):
            client.fetch_share(server.address, "a/s", 1, attempts=[0], share=(0, 1), key_columns=[])


def test_owner_that_is_frozen_is_lost_before_it_is_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, ShuffleClient() as client:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(PeerLost, match=address):
            client.fetch_share(address, "a/s", 1, attempts=[0], share=(0, 1), key_columns=[], timeout_s=600)
