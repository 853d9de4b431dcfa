"""Brings the client's own tables to the agents of a job, in pieces, one per slot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from sabot.client.flight import upload_piece
from sabot.dataflow.execution import to_wire, wire_schema
from sabot.dataflow.stage import TablePiece
from sabot.errors import PeerLost

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


def upload_tables(
    job_id: str,
    tables: Mapping[str, pa.Table],
    slots_by_address: Mapping[str, int],
    *,
    timeout_s: float = _UPLOAD_TIMEOUT_S,
) -> dict[str, tuple[TablePiece, ...]]:
    """Uploads every table for the job; the agents drop what no job claims within their upload lease."""
    return {
        table_id: tuple(
            _upload(f"{job_id}/upload/{table_id}", table, piece, timeout_s)
            for piece in cut_pieces(table.num_rows, slots_by_address)
        )
        for table_id, table in tables.items()
    }


def move_pieces(
    job_id: str,
    tables: Mapping[str, pa.Table],
    uploads: Mapping[str, tuple[TablePiece, ...]],
    lost: str,
    address: str,
    *,
    timeout_s: float = _UPLOAD_TIMEOUT_S,
) -> dict[str, tuple[TablePiece, ...]]:
    """Uploads the pieces that lay on the agent `lost` once more, to the one at `address`. Gives where all are."""
    moved = {}
    for table_id, pieces in uploads.items():
        placed, start = [], 0
        for piece in pieces:
            stop = start + piece.rows
            if table_id in tables and piece.flight_address == lost != address:
                rows = PieceRows(index=piece.index, flight_address=address, start=start, stop=stop)
                piece = _upload(f"{job_id}/upload/{table_id}", tables[table_id], rows, timeout_s)  # noqa: PLW2901
            placed.append(piece)
            start = stop
        moved[table_id] = tuple(placed)
    return moved


def _upload(name: str, table: pa.Table, piece: PieceRows, timeout_s: float) -> TablePiece:
    rows = table.slice(piece.start, piece.stop - piece.start)
    schema = wire_schema(table.schema)
    count = upload_piece(piece.flight_address, name, piece.index, _batches(rows), schema, timeout_s=timeout_s)
    return TablePiece(index=piece.index, flight_address=piece.flight_address, rows=count)


def _batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    for batch in table.to_batches():
        yield to_wire(batch)
