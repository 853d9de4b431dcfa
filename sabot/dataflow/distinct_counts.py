"""Distinct values of a column counted without keys: as the groups by that column, which all agents count together.

pyarrow's own count over chunks forgets a null that the last of them does not have.
"""

from __future__ import annotations

import pyarrow.compute as pc

from sabot.dataflow.aggregate_options import count_mode
from sabot.dataflow.columns import hashable
from sabot.dataflow.grouping import aggregate_name, target_columns
from sabot.dataflow.plan import AggregateNode, Node, ProjectNode
from sabot.dataflow.stage import Aggregate


def as_count_of_groups(node: AggregateNode) -> Node | None:
    """The same answer by way of groups; None for all other aggregations."""
    columns = {target_columns(target) for target, *_ in node.step.aggregations}
    functions = {function.removeprefix("hash_") for _, function, *_ in node.step.aggregations}
    if node.step.keys or functions != {"count_distinct"} or len(columns) != 1:
        return None
    ((column, *others),) = columns
    modes = [count_mode(options[0] if options else None) for _, _, *options in node.step.aggregations]
    if others or len(set(modes)) != 1 or modes[0] is None or not hashable(node.child.schema.field(column).type):
        return None
    groups = AggregateNode(child=node.child, step=Aggregate(keys=(column,), aggregations=()))
    counted = Aggregate(keys=(), aggregations=((column, "count", pc.CountOptions(mode=modes[0])),))
    return ProjectNode(
        child=AggregateNode(child=groups, step=counted),
        names=tuple(aggregate_name(aggregation) for aggregation in node.step.aggregations),
        expressions=(pc.field(f"{column}_count"),) * len(modes),
        what="aggregate",
    )
