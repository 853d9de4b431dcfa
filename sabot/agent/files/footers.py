"""Keeps the footers of Parquet files that tasks have read, so that of a file with many row groups it is read once.

A footer belongs to the file as it was pinned; whoever uses one has checked that the file is still that one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import pyarrow as pa
import pyarrow.parquet as pq

from sabot.dataflow.stage import SourceFile

KEPT_BYTES_MAX = 16 << 20
"""Of footers as they are in the files; in memory they take some times that."""

_Key = tuple[bytes, str, int, int, str]


class Footers:
    """One for all tasks of an agent; safe from many threads, of which two may read a footer at the same time."""

    def __init__(self, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, pq.FileMetaData] = OrderedDict()  # guarded by _lock; used last stands last
        self._kept_bytes = 0  # guarded by _lock

    def open(
        self, opened: pa.NativeFile, file: SourceFile, filesystem: bytes, *, buffer_bytes: int = 0
    ) -> pq.ParquetFile:
        """The open file `file` of a packed file system, with its footer: the kept one, or one that is kept from now.
        Of each column `buffer_bytes` are read at a time; 0: all at once.
        """
        key = (filesystem, file.path, file.size_bytes, file.modified_ns, file.etag)
        with self._lock:
            footer = self._kept.get(key)
            if footer is not None:
                self._kept.move_to_end(key)
        # Where a file is far away, neighbouring columns are fetched by one request: 2 in place of 41 in S3 for 4 row
        # groups of 10 columns. Here it would only hold the encoded pages longer.
        ahead = filesystem != b"" and not buffer_bytes
        parquet = pq.ParquetFile(opened, metadata=footer, pre_buffer=ahead, buffer_size=buffer_bytes)
        if footer is None:
            self._keep(key, parquet.metadata)
        return parquet

    def _keep(self, key: _Key, footer: pq.FileMetaData) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = footer
            self._kept_bytes += footer.serialized_size
            while self._kept_bytes > self._bytes_max:
                _, dropped = self._kept.popitem(last=False)
                self._kept_bytes -= dropped.serialized_size
