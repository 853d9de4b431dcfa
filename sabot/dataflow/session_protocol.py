"""What a Dataset knows of the session it was made from, so that the dataflow needs no client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from sabot.dataflow.plan import Node
from sabot.dataflow.stage import WriteOutput


class ResultProtocol(Protocol):
    """The answer of a job that has ended; agents keep it until it is closed or its lease ends."""

    def to_table(self) -> pa.Table:
        """All rows, with the dataset's schema."""
        ...

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows batch by batch, in order."""
        ...

    def close(self) -> None:
        """Lets the agents forget the answer; idempotent."""
        ...


class SessionProtocol(Protocol):
    """Runs the jobs of its datasets."""

    def run(self, root: Node, *, output: WriteOutput | None = None) -> ResultProtocol:
        """Runs the job and waits for its end. A relative `output.folder` is taken from the client's directory."""
        ...
