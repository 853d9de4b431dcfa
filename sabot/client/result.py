"""A job's answer, which stays with the agents until it is closed, and can be read again until then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import pyarrow as pa

from sabot.client.flight import Connect, flight_client, read_partition
from sabot.client.partition_stream import read_whole, stream_partition
from sabot.client.quarantine import Quarantine
from sabot.client.receipt import Receipt, Stats
from sabot.client.watchdog import Watchdog
from sabot.dataflow.columns import plain_schema
from sabot.dataflow.execution import from_wire, wire_schema
from sabot.dataflow.pandas_needed import check_pandas
from sabot.dataflow.stage import TablePiece
from sabot.errors import UsageError

_FETCH_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultPart:
    """One partition as its task reported it."""

    partition: int
    flight_address: str
    ticket: str
    rows: int
    content_sum: int
    agent_id: str


class Result:
    """Partitions on the agents, in order, with the job's receipt and stats.

    What is read is audited: batches against their sender's account as they come, partitions against the job's.
    `close()` frees it on the agents; so does collecting it, or closing the session.
    """

    def __init__(
        self,
        *,
        schema: pa.Schema,
        parts: Sequence[ResultPart],
        receipt: Receipt,
        stats: Stats,
        watchdog: Watchdog,
        quarantines: Sequence[Quarantine] = (),
        fetch_timeout_s: float = _FETCH_TIMEOUT_S,
        connect: Connect = flight_client,
    ) -> None:
        self.schema: pa.Schema = plain_schema(schema)
        self.receipt = receipt
        self.stats = stats
        self.quarantines = tuple(quarantines)
        self._watchdog = watchdog
        self._parts = tuple(sorted(parts, key=lambda part: part.partition))
        self._fetch_timeout_s = fetch_timeout_s
        self._connect = connect
        self._closed_because: str | None = None
        self._release: Callable[[], object] | None = None

    def on_close(self, release: Callable[[], object]) -> None:
        """`release` is called once, by the first `close()`."""
        self._release = release

    @property
    def num_rows(self) -> int:
        """Rows of the answer, known without reading it."""
        return sum(part.rows for part in self._parts)

    @property
    def quarantine(self) -> pa.Table:
        """What the job's function with `on_error="quarantine"` failed on: the rows of those batches, and behind their
        columns error_type, error_message, error_traceback, error_stage, error_task. Where there are several such
        functions, or none: UsageError; `quarantines` has one for each.
        """
        if len(self.quarantines) != 1:
            names = ", ".join(kept.function for kept in self.quarantines) or "none"
            raise UsageError(
                f"quarantine is of the one function that is called with on_error='quarantine', and here are {names}; "
                "see quarantines"
            )
        return self.quarantines[0].table

    def pieces(self) -> tuple[TablePiece, ...]:
        """Where the partitions lie, for other jobs to read."""
        self._check_open()
        return tuple(
            TablePiece(
                index=part.partition,
                flight_address=part.flight_address,
                rows=part.rows,
                result=unquote(part.ticket.split(":")[3]),  # docs/protocol.md, Tickets
            )
            for part in self._parts
        )

    def to_table(self) -> pa.Table:
        """The whole answer in this process's memory, audited whole before it is given."""
        self._check_open()
        on_wire = wire_schema(self.schema)
        tables = [self.schema.empty_table()]
        for part in self._parts:
            self._check_open()
            batches = self._read_whole(part, on_wire)
            tables.append(from_wire(pa.Table.from_batches(batches, schema=on_wire), self.schema))
        return pa.concat_tables(tables)

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The answer's batches in order, fetched as they are asked for: this process holds one or two at a time, and
        what Flight buffers of its stream.

        Each batch is audited before it is handed out; whether a partition is whole is known at its end, and an error
        comes in the place of the next batch. A stream that breaks because its reader is slow is opened again.
        """
        self._check_open()
        return self._batches()

    def to_pandas(self, **options: Any) -> Any:
        """The whole answer as a pandas.DataFrame; `options` are those of pyarrow.Table.to_pandas."""
        check_pandas()
        return self.to_table().to_pandas(**options)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        on_wire = wire_schema(self.schema)
        for part in self._parts:
            for batch in self._stream(part, on_wire):
                self._check_open()
                yield from from_wire(pa.Table.from_batches([batch]), self.schema).to_batches()

    def _read_whole(self, part: ResultPart, on_wire: pa.Schema) -> list[pa.RecordBatch]:
        def read(left: threading.Event) -> list[pa.RecordBatch]:
            def wanted() -> Iterator[pa.RecordBatch]:
                return takewhile(lambda _: not left.is_set(), self._read(part, on_wire))

            return read_whole(wanted)

        return self._watchdog.call(read, address=part.flight_address, what=_name_of(part))

    def _stream(self, part: ResultPart, on_wire: pa.Schema) -> Iterator[pa.RecordBatch]:
        what = _name_of(part)

        def watched() -> Iterator[pa.RecordBatch]:
            return self._watchdog.each(self._read(part, on_wire), address=part.flight_address, what=what)

        return stream_partition(watched, what)

    def _read(self, part: ResultPart, on_wire: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
        self._check_open()
        return read_partition(
            part.flight_address,
            part.ticket,
            rows=part.rows,
            content_sum=part.content_sum,
            schema=on_wire,
            what=_name_of(part),
            timeout_s=self._fetch_timeout_s,
            connect=self._connect,
        )

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """For Polars, DuckDB, pandas and all that read the Arrow C stream."""
        reader = pa.RecordBatchReader.from_batches(self.schema, self.to_batches())
        return reader.__arrow_c_stream__(requested_schema)

    def _check_open(self) -> None:
        if self._closed_because is not None:
            raise UsageError(f"the result cannot be read: {self._closed_because}; run the dataset again")

    def close(self, *, because: str = "it was closed") -> None:
        """Frees the answer on the agents; a second call does nothing."""
        if self._closed_because is not None:
            return
        self._closed_because = because
        if self._release is not None:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"closed: {self._closed_because}" if self._closed_because else f"{len(self._parts)} partitions"
        return f"<sabot.Result of {self.num_rows:,} rows, {state}>"


def _name_of(part: ResultPart) -> str:
    return f"partition {part.partition} of the result"
