"""Gives what Arrow raises when the agent's memory is full the type and the words that the user can act on."""

from __future__ import annotations

import pyarrow as pa

from sabot.errors import LimitReached

_KEY = "memory.bytes_max"


def typed(error: BaseException) -> BaseException:
    """LimitReached naming memory.bytes_max in place of pyarrow's memory error; any other error as it is.

    Acero and Parquet hand on the refusal of the ledger's pool as a status, which pyarrow raises by a class of its own.
    """
    if not isinstance(error, pa.ArrowMemoryError):
        return error
    message = str(error).partition(". Detail: ")[0]
    if _KEY not in message:
        message = f"the machine has no memory left ({message}); lower {_KEY} below what it really has"
    limit = LimitReached(message, limit=_KEY)
    for note in getattr(error, "__notes__", []):
        limit.add_note(note)
    limit.__cause__ = error.__cause__
    return limit
