"""The client's side of the Flight ports: pieces of tables go up, partitions of results come down.

Plain pyarrow.flight, as docs/protocol.md has it. Every call has a deadline; what goes wrong is raised as one of
sabot.errors with the address. Nothing here knows about jobs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import pyarrow as pa
import pyarrow.flight as fl

from sabot.client.flight_errors import errors_named
from sabot.errors import PeerLost, PeerRefused, ShuffleIntegrityError
from sabot.native import _native
from sabot.wire.versions import PROTOCOL

_UPLOAD_END = struct.Struct("<4sQ")  # magic, rows
_UPLOAD_MAGIC = b"SBTE"
_MARK = struct.Struct("<4sBxxxQQQ")  # magic, last, sequence, rows so far, content sum so far
_MARK_MAGIC = b"SBTR"
_PING = struct.Struct("<4sHQ")  # magic, protocol, incarnation
_PING_MAGIC = b"SBTP"
_SUM_MASK = 2**64 - 1
_MESSAGE_BYTES_MAX = 4 << 20


Connect = Callable[[str], AbstractContextManager[fl.FlightClient]]


def open_flight_client(address: str) -> fl.FlightClient:
    """A client for one address, to be closed; no HTTP proxy stands between."""
    return fl.FlightClient(f"grpc://{address}", generic_options=[("grpc.enable_http_proxy", 0)])


@contextmanager
def flight_client(address: str) -> Iterator[fl.FlightClient]:
    """A client for one address, closed at the end."""
    client = open_flight_client(address)
    try:
        yield client
    finally:
        client.close()


def upload_piece(
    address: str, name: str, index: int, batches: Iterable[pa.RecordBatch], schema: pa.Schema, *, timeout_s: float
) -> int:
    """Publishes `batches` as (name, index) on the agent; gives the rows, which it has acknowledged with their content.

    Dictionaries must be decoded already. An upload that ends early is dropped by the agent.
    """
    options = fl.FlightCallOptions(timeout=timeout_s)
    descriptor = fl.FlightDescriptor.for_path("sabot", "publish", name, str(index))
    rows = content_sum = 0
    with errors_named(address, f"the upload of {name} piece {index}", timeout_s), flight_client(address) as client:
        writer, reader = client.do_put(descriptor, schema, options=options)
        try:
            for batch in batches:
                content_sum = (content_sum + sum_of(batch)) & _SUM_MASK
                for part in _cut(batch):
                    writer.write_batch(part)
                    rows += part.num_rows
            writer.write_metadata(_UPLOAD_END.pack(_UPLOAD_MAGIC, rows))
            writer.done_writing()
            answer = reader.read()
        except BaseException:
            with suppress(pa.ArrowException):  # what the agent says of a broken upload must not hide why it broke
                writer.close()
            raise
        writer.close()
    if answer is None:
        raise PeerLost(
            f"agent {address} did not acknowledge an upload; see its log, then run the job again", address=address
        )
    if answer.size != _MARK.size or not answer.to_pybytes().startswith(_MARK_MAGIC):
        raise PeerRefused(
            f"{address} answered an upload with something that is no acknowledgement of Sabot's; "
            "check that it is the Flight port of an agent",
            address=address,
        )
    stored = _MARK.unpack(answer.to_pybytes())[3:]
    if stored != (rows, content_sum):
        raise ShuffleIntegrityError(
            f"agent {address} stored {stored[0]} rows with content sum {stored[1]:#x} of the {rows} rows with "
            f"{content_sum:#x} uploaded as {name} piece {index}; run the job again and report it if it happens twice",
            agent=address,
        )
    return rows


def ping_agent(address: str, incarnation: int | None = None, *, timeout_s: float) -> None:
    """Returns when the agent answers, the one of this incarnation where it is given; its native thread does so whatever
    its Python does.
    """
    options = fl.FlightCallOptions(timeout=timeout_s)
    with errors_named(address, "a ping", timeout_s), flight_client(address) as client:
        answers = list(client.do_action(fl.Action("ping", b""), options))
    if len(answers) != 1 or answers[0].body.size != _PING.size:
        raise PeerRefused(f"{address} answered a ping with something that is not Sabot's", address=address)
    magic, protocol, found = _PING.unpack(answers[0].body.to_pybytes())
    if (magic, protocol, incarnation or found) != (_PING_MAGIC, PROTOCOL, found):
        raise PeerLost(f"the agent at {address} was started anew; run the job again", address=address)


def sum_of(batch: pa.RecordBatch) -> int:
    """The content sum of a batch without keys."""
    return int(_native.content_sum(batch, [], 0)) if batch.num_columns else 0


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Slices of at most about 4 MiB; a large message would be held by gRPC whole on both sides."""
    rows_max = max(1, batch.num_rows * _MESSAGE_BYTES_MAX // (batch.nbytes + 1))
    if batch.num_rows <= rows_max:
        yield batch
        return
    for start in range(0, batch.num_rows, rows_max):
        yield batch.slice(start, rows_max)


def read_partition(
    address: str,
    ticket: str,
    *,
    rows: int,
    content_sum: int,
    schema: pa.Schema,
    what: str,
    timeout_s: float,
    connect: Connect = flight_client,
) -> Generator[pa.RecordBatch, None, None]:
    """The batches of one published partition as they come, each held against its sender's account up to there, and
    the whole against what the task reported; the error for a fault of the whole comes in the place of the end.

    `rows` and `content_sum` are what the task reported to the coordinator when it made them; `schema` is the one
    planned, dictionaries decoded. What is missing is PeerLost; what is there and wrong is ShuffleIntegrityError.
    """
    audit = _Audit(what, address)
    options = fl.FlightCallOptions(timeout=timeout_s)
    with errors_named(address, what, timeout_s), connect(address) as client:
        reader = client.do_get(fl.Ticket(ticket.encode()), options)
        if not reader.schema.equals(schema):
            raise audit.wrong(f"has the schema\n{reader.schema}\nand not the planned\n{schema}\n")
        try:
            for chunk in reader:
                audit.add(chunk.data, chunk.app_metadata)
                if chunk.data.num_rows:
                    yield chunk.data
        finally:
            if not audit.ended:  # who reads no further must not wait for the rest
                reader.cancel()
    if not audit.ended:
        raise PeerLost(
            f"{what} from agent {address} broke off after {audit.rows} of {rows} rows; run the job again",
            address=address,
        )
    if (audit.rows, audit.content_sum) != (rows, content_sum):
        raise audit.wrong(
            f"has {audit.rows} rows with content sum {audit.content_sum:#x} and not {rows} with {content_sum:#x}, "
            "as the task reported"
        )


class _Audit:
    """Counts what is read and holds every batch against its own metadata."""

    def __init__(self, what: str, address: str) -> None:
        self._what = what
        self._address = address
        self._sequence = 0
        self.rows = 0
        self.content_sum = 0
        self.ended = False

    def add(self, batch: pa.RecordBatch, metadata: pa.Buffer | None) -> None:
        if metadata is None or metadata.size != _MARK.size:
            raise self.wrong("has a batch without Sabot's metadata")
        magic, last, sequence, rows, content_sum = _MARK.unpack(metadata.to_pybytes())
        if magic != _MARK_MAGIC or self.ended or sequence != self._sequence:
            raise self.wrong(f"has batch {sequence} of kind {magic!r} where batch {self._sequence} was due")
        self._sequence += 1
        self.ended = bool(last)
        self.rows += batch.num_rows
        self.content_sum = (self.content_sum + sum_of(batch)) & _SUM_MASK
        if (self.rows, self.content_sum) != (rows, content_sum):
            raise self.wrong(f"differs from what was sent in batch {sequence}")

    def wrong(self, how: str) -> ShuffleIntegrityError:
        return ShuffleIntegrityError(
            f"{self._what} from agent {self._address} {how}; run the job again and report it if it happens twice",
            agent=self._address,
        )
