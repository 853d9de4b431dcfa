"""A user's function that runs in the slots on rows as they arrive."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pyarrow as pa

Processor = Callable[[pa.RecordBatch], pa.RecordBatch | None]


class KeptProcessor:
    """Calls the function and keeps its first exception, which the reader of the shuffle raises as itself."""

    def __init__(self, function: Processor) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._error: BaseException | None = None  # guarded by _lock

    def call(self, rows: pa.RecordBatch) -> pa.RecordBatch | None:
        result = self._function(rows)
        if result is None or isinstance(result, pa.RecordBatch):
            return result
        name = getattr(self._function, "__qualname__", repr(self._function))
        raise TypeError(f"The processor {name} must return a pyarrow.RecordBatch or None, not {type(result).__name__}.")

    def keep(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error

    def raise_kept(self) -> None:
        with self._lock:
            error = self._error
        if error is not None:
            raise error
