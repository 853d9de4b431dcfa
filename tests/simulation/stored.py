"""What an agent has stored of shuffles, in memory or on its disk."""

from __future__ import annotations

from sabot.errors import LimitReached
from sabot.native._native import BookkeepingMachine, HeaderFields

from .jobs import Rows


class StoredChunk:
    """Rows with what their header said, in memory or on the disk."""

    def __init__(self, fields: HeaderFields, rows: Rows) -> None:
        self.fields = fields
        self.attempt = (fields.task, fields.attempt)
        self.rows = rows
        self.in_memory = True


class HeldShuffle:
    """A shuffle that is open here: what is stored of it, and the machine that judges what comes."""

    def __init__(self, book: BookkeepingMachine) -> None:
        self.book = book
        self.chunks: list[StoredChunk] = []
        self.failure: LimitReached | None = None
