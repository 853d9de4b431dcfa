"""Grouping rows whose equal keys lie side by side, as in files sorted by them: without a hash table, natively."""

from __future__ import annotations

import pyarrow as pa

from sabot.dataflow.grouping import aggregate_name, target_columns
from sabot.dataflow.stage import Aggregate
from sabot.native._native import RunGrouping

_ROWS_MIN = 4096  # fewer are grouped by Acero before anything would be gained
_LOOKED_AT_ROWS = 1024  # rows in no order are found out among so many, before they are copied into one piece


def group_runs(step: Aggregate, table: pa.Table, *, runs_max: int | None = None, ascending: bool) -> pa.Table | None:
    """What the step gives, with a group for each run of equal keys; None where there are more than `runs_max`, or where
    the columns or aggregates are others than numbers' sums, counts and the like. `finish` is not applied.

    With `ascending` runs are whole groups: None unless the keys ascend from run to run.
    """
    if table.num_rows < _ROWS_MIN or not step.keys or any(len(aggregation) > 2 for aggregation in step.aggregations):
        return None
    wanted = [
        (aggregation[1].removeprefix("hash_"), next(iter(target_columns(aggregation[0])), None))
        for aggregation in step.aggregations
    ]
    grouping = RunGrouping(table.schema, step.keys, wanted, ascending=ascending)
    if not grouping.takes:
        return None
    if ascending and _in_one_piece(grouping, table.slice(0, _LOOKED_AT_ROWS), _LOOKED_AT_ROWS) is None:
        return None
    runs = _in_one_piece(grouping, table, table.num_rows if runs_max is None else runs_max)
    if runs is None:
        return None
    names = [*step.keys, *(aggregate_name(aggregation) for aggregation in step.aggregations)]
    return pa.Table.from_arrays(runs.columns, names=names)


def _in_one_piece(grouping: RunGrouping, table: pa.Table, runs_max: int) -> pa.RecordBatch | None:
    (batch,) = table.combine_chunks().to_batches()
    return grouping.group(batch, runs_max)
