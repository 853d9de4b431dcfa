"""What a Dataset knows of the session it was made from, so that the dataflow needs no client."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import pyarrow as pa

from sabot.dataflow.learned_schema import SchemaProbe
from sabot.dataflow.plan import Node
from sabot.dataflow.stage import TablePiece, WriteOutput

if TYPE_CHECKING:
    from sabot.dataflow.persisted_dataset import PersistedDataset


class ResultProtocol(Protocol):
    """The answer of a job that has ended; agents keep it until it is closed or its lease ends."""

    @property
    def receipt(self) -> Any:
        """The audit of the job's shuffles: a `sabot.client.receipt.Receipt`."""
        ...

    @property
    def stats(self) -> Any:
        """What the stages did: a `sabot.client.receipt.Stats`."""
        ...

    def pieces(self) -> tuple[TablePiece, ...]:
        """Where its partitions lie, for other jobs to read; UsageError where it was closed."""
        ...

    @property
    def quarantines(self) -> Any:
        """What functions failed on: one `sabot.client.quarantine.Quarantine` for each that was to keep such batches."""
        ...

    def to_table(self) -> pa.Table:
        """All rows, with the dataset's schema."""
        ...

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows batch by batch, in order."""
        ...

    def to_pandas(self, **options: Any) -> Any:
        """All rows as a pandas.DataFrame; UsageError where pandas is not installed."""
        ...

    def close(self) -> None:
        """Lets the agents forget the answer; idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class JobProtocol(Protocol):
    """A job that runs while the program goes on; dropping it cancels it."""

    job_id: str

    @property
    def progress(self) -> Any:
        """How far it is: a `sabot.client.job.Progress`."""
        ...

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        ...

    def result(self, timeout_s: float | None = None) -> ResultProtocol:
        """Waits for its end; raises its failure as its own type."""
        ...

    def cancel(self) -> None:
        """Ends it on all agents."""
        ...


class SessionProtocol(Protocol):
    """Runs the jobs of its datasets."""

    broadcast_bytes_max: int  # up to which size a side of a join is copied to every agent

    def persist(self, root: Node, *, timeout_s: float | None = None) -> PersistedDataset:
        """Runs the job and makes a Dataset of its result."""
        ...

    def run(
        self,
        root: Node,
        *,
        output: WriteOutput | None = None,
        timeout_s: float | None = None,
        progress: bool | None = None,
    ) -> ResultProtocol:
        """Runs the job and waits for its end. A relative `output.folder` is taken from the client's directory."""
        ...

    def analyze(self, root: Node) -> str:
        """Runs the job, drops its answer, and says what its stages did."""
        ...

    def submit(self, root: Node, *, output: WriteOutput | None = None, timeout_s: float | None = None) -> JobProtocol:
        """Starts the job and returns at once."""
        ...

    def learn_schema(self, probe: SchemaProbe, schema: pa.Schema) -> pa.Schema:
        """The columns that the probe's function returns for no rows of `schema`; it is called in a worker. What it
        raises is the cause of a UsageError (`probe.failed`).
        """
        ...
