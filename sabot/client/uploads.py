"""Brings the client's own tables to the agents of a job, in pieces, one per slot."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sabot.client.flight import upload_piece
from sabot.client.watchdog import Watchdog
from sabot.dataflow.execution import to_wire, wire_schema
from sabot.dataflow.stage import TablePiece
from sabot.errors import JobCancelled, PeerLost

_UPLOAD_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceRows:
    """Rows [start, stop) of a table, meant for the agent with this Flight address."""

    index: int
    flight_address: str
    start: int
    stop: int


def cut_pieces(rows: int, slots_by_address: Mapping[str, int]) -> list[PieceRows]:
    """One piece per slot, in the table's order, no emptier than needed: at least one, and at most one per row.

    Pieces are dealt to the agents in turn, so that few pieces still reach many agents.
    """
    most = max(slots_by_address.values(), default=0)
    dealt = [address for turn in range(most) for address, slots in slots_by_address.items() if slots > turn]
    owners = dealt or list(slots_by_address)[:1]
    if not owners:
        raise PeerLost("the cluster has no agent that takes work; see sabot-agent agents")
    count = max(1, min(len(owners), rows))
    return [
        PieceRows(
            index=index,
            flight_address=owners[index],
            start=rows * index // count,
            stop=rows * (index + 1) // count,
        )
        for index in range(count)
    ]


class Uploader:
    """Uploads for one job; the agents drop what no job claims within their upload lease."""

    def __init__(self, job_id: str, watchdog: Watchdog, *, timeout_s: float = _UPLOAD_TIMEOUT_S) -> None:
        self._job_id = job_id
        self._watchdog = watchdog
        self._timeout_s = timeout_s
        self._lost: dict[str, PeerLost] = {}  # by Flight address

    def upload(
        self, tables: Mapping[str, pa.Table], slots_by_address: Mapping[str, int]
    ) -> dict[str, tuple[TablePiece, ...]]:
        """Every table, cut into pieces; what an agent that is lost meanwhile was to get goes to another one."""
        return {
            table_id: tuple(
                self._upload_to_one_of([piece.flight_address, *slots_by_address], table_id, table, piece)
                for piece in cut_pieces(table.num_rows, slots_by_address)
            )
            for table_id, table in tables.items()
        }

    def move(
        self, tables: Mapping[str, pa.Table], uploads: Mapping[str, tuple[TablePiece, ...]], lost: str, address: str
    ) -> dict[str, tuple[TablePiece, ...]]:
        """Uploads the pieces that lay on the agent `lost` once more, to the one at `address`. Gives where all are."""
        moved = {}
        for table_id, pieces in uploads.items():
            placed, start = [], 0
            for piece in pieces:
                stop = start + piece.rows
                if table_id in tables and piece.flight_address == lost != address:
                    rows = PieceRows(index=piece.index, flight_address=address, start=start, stop=stop)
                    piece = self._upload(address, table_id, tables[table_id], rows)  # noqa: PLW2901
                placed.append(piece)
                start = stop
            moved[table_id] = tuple(placed)
        return moved

    def _upload_to_one_of(
        self, addresses: Sequence[str], table_id: str, table: pa.Table, piece: PieceRows
    ) -> TablePiece:
        for address in addresses:
            if address in self._lost:
                continue
            try:
                return self._upload(address, table_id, table, piece)
            except PeerLost as error:
                self._lost[address] = error
        raise self._lost[addresses[0]]

    def _upload(self, address: str, table_id: str, table: pa.Table, piece: PieceRows) -> TablePiece:
        rows = table.slice(piece.start, piece.stop - piece.start)
        schema = wire_schema(table.schema)
        name = f"{self._job_id}/upload/{table_id}"

        def upload(left: threading.Event) -> int:
            batches = _batches(rows, left)
            return upload_piece(address, name, piece.index, batches, schema, timeout_s=self._timeout_s)

        what = f"the upload of {name} piece {piece.index}"
        count = self._watchdog.call(upload, address=address, what=what)
        return TablePiece(index=piece.index, flight_address=address, rows=count)


def _batches(table: pa.Table, left: threading.Event) -> Iterator[pa.RecordBatch]:
    for batch in table.to_batches():
        if left.is_set():
            raise JobCancelled("nobody waits for this upload any more")
        yield to_wire(batch)
