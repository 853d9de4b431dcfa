"""A session that outlives a test keeps the connections that it opens: those are to be there before."""

from __future__ import annotations

import pyarrow as pa

from sabot.client.session import Session


def open_connections(session: Session) -> None:
    """Reads a result of which every agent has a part."""
    numbers = session.from_table(pa.table({"x": range(1000)}))
    with numbers.repartition("x").run() as result:
        assert result.to_table().num_rows == 1000
