"""One partition's aggregation, by our own code or as an Acero plan, with pyarrow's names and order of columns."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import _acero as acero  # pyarrow.acero imports pyarrow.dataset: 16 MB, with pandas 50

from sabot.dataflow.columns import plain_schema
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
    if not table.num_rows and _is_distinct_of_dictionary(step, table.schema):
        return acero.Declaration.from_sequence([table_source(_one_row(table.schema)), node, _no_group()])
    return acero.Declaration.from_sequence([table_source(table.unify_dictionaries()), node])


def _is_distinct_of_dictionary(step: Aggregate, schema: pa.Schema) -> bool:
    """Of which pyarrow, where no dictionary comes because no row does, ends the process."""
    distinct = [target for target, function, *_ in step.aggregations if function.removeprefix("hash_") == "distinct"]
    columns = {column for target in distinct for column in target_columns(target)}
    return bool(step.keys) and any(pa.types.is_dictionary(field.type) and field.name in columns for field in schema)


def _one_row(schema: pa.Schema) -> pa.Table:
    """All of it null, with an empty dictionary where one is needed."""
    return pa.Table.from_arrays([pa.nulls(1, field.type) for field in schema], schema=plain_schema(schema))


def _no_group() -> acero.Declaration:
    """Drops the group of that row."""
    return acero.Declaration("filter", acero.FilterNodeOptions(pc.scalar(False)))
