"""One partition's aggregation, by our own code or as an Acero plan, with pyarrow's names and order of columns."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from pyarrow import acero

from sabot.dataflow.expressions import table_source
from sabot.dataflow.stage import Aggregate, Aggregation
from sabot.native._native import group_rows


def target_columns(target: str | Sequence[str]) -> tuple[str, ...]:
    """The columns of an aggregation's target."""
    return (target,) if isinstance(target, str) else tuple(target)


def aggregate_name(aggregation: Aggregation) -> str:
    """The name that pyarrow gives the aggregation's column."""
    return "_".join([*target_columns(aggregation[0]), aggregation[1].removeprefix("hash_")])


def group_by_one_key(table: pa.Table, step: Aggregate) -> pa.Table | None:
    """What `group_declaration` is for, computed in the calling thread; None where that is to be used."""
    if len(step.keys) != 1:
        return None
    aggregates = []
    for aggregation in step.aggregations:
        columns = target_columns(aggregation[0])
        if len(columns) > 1 or (len(aggregation) > 2 and aggregation[2] is not None):
            return None
        function = aggregation[1].removeprefix("hash_")
        aggregates.append((function, columns[0] if columns else None, aggregate_name(aggregation)))
    return group_rows(table, step.keys[0], aggregates)


def group_declaration(table: pa.Table, step: Aggregate) -> acero.Declaration:
    """For what `table.group_by(keys).aggregate(...)` gives, to be run in one thread: aggregates such as first and list
    go by the order of the rows.
    """
    prefix = "hash_" if step.keys else ""
    aggregates = []
    for aggregation in step.aggregations:
        function = prefix + aggregation[1].removeprefix("hash_")
        options = aggregation[2] if len(aggregation) > 2 else None
        aggregates.append((list(target_columns(aggregation[0])), function, options, aggregate_name(aggregation)))
    node = acero.Declaration("aggregate", acero.AggregateNodeOptions(aggregates, keys=list(step.keys)))
    return acero.Declaration.from_sequence([table_source(table.unify_dictionaries()), node])
