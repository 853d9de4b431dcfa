"""The Dataset that `Dataset.persist` gives: what frees its rows."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from sabot.dataflow.dataset import Dataset
from sabot.dataflow.persisted import PersistedNode
from sabot.dataflow.plan import Node
from sabot.dataflow.session_protocol import ResultProtocol, SessionProtocol


class PersistedDataset(Dataset):
    """A Dataset whose rows lie computed with the agents; made by `Dataset.persist`. A context manager."""

    def __init__(self, session: SessionProtocol, computed: Node, result: ResultProtocol) -> None:
        pieces = result.pieces()
        node = PersistedNode(
            table_id=str(pieces[0].result),
            result=result,
            result_schema=computed.schema,
            rows=sum(piece.rows for piece in pieces),
        )
        super().__init__(session, node)
        self._result = result

    @property
    def receipt(self) -> Any:
        """The audit of the job that has computed the rows."""
        return self._result.receipt

    def close(self) -> None:
        """Frees the rows on the agents; a job that would use them is a UsageError from now on. Idempotent."""
        self._result.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
