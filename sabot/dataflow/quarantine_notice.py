"""Whoever takes the rows of a job and not its result is told that some are left out."""

from __future__ import annotations

import warnings

from sabot.dataflow.session_protocol import ResultProtocol


def tell_quarantined(result: ResultProtocol, *, stacklevel: int) -> None:
    """A UserWarning for the functions that have failed on batches of this job; `stacklevel` 1 is who calls this."""
    for kept in result.quarantines:
        if kept.table.num_rows:
            warnings.warn(
                f"{kept.function} failed on batches of {kept.table.num_rows:,} rows, which the answer is without; "
                "run() the dataset and look at the result's quarantine",
                stacklevel=stacklevel + 1,
            )
